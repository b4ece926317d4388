"""compute-inside: of a tile that overhangs its array, what is stored is computed, and nothing else."""

from mosaic_compile.passes import Upstream
from mosaic_compile.passes.compute_inside import ComputeInside

from .helpers import check

PASS = (ComputeInside(), Upstream("canonicalize"), Upstream("cse"))


def test_rows_and_columns():
    check(
        """
        #id = affine_map<(i, j) -> (i, j)>
        #row = affine_map<(i, j) -> (0, j)>
        #column = affine_map<(i, j) -> (i)>
        // CHECK-LABEL: func.func @kernel
        // CHECK-DAG: %[[X:.*]] = tensor.extract_slice %arg0[0, 0] [%arg3, %arg4] [1, 1] : tensor<4x16xf32> to tensor<?x?xf32>
        // CHECK-DAG: %[[W:.*]] = tensor.extract_slice %arg1[0, 0] [1, %arg4] [1, 1] : tensor<1x16xf32> to tensor<1x?xf32>
        // CHECK-DAG: %[[B:.*]] = tensor.extract_slice %arg2[0] [%arg3] [1] : tensor<4xf32> to tensor<?xf32>
        // CHECK: linalg.generic {{.*}} ins(%[[X]], %[[W]], %[[B]], %arg5 : {{.*}}) outs({{.*}} : tensor<?x?xf32>)
        // CHECK-NOT: tensor<4x16xf32>)
        // CHECK: return
        func.func @kernel(%x: tensor<4x16xf32>, %w: tensor<1x16xf32>, %b: tensor<4xf32>, %m: index, %n: index, %s: f32)
            -> tensor<?x?xf32> {
          %e = tensor.empty() : tensor<4x16xf32>
          %y = linalg.generic {indexing_maps = [#id, #row, #column, affine_map<(i, j) -> ()>, #id],
                               iterator_types = ["parallel", "parallel"]}
            ins(%x, %w, %b, %s : tensor<4x16xf32>, tensor<1x16xf32>, tensor<4xf32>, f32) outs(%e : tensor<4x16xf32>) {
          ^bb0(%a: f32, %c: f32, %d: f32, %f: f32, %out: f32):
            %p = arith.mulf %a, %c : f32
            %q = arith.addf %p, %d : f32
            %r = arith.addf %q, %f : f32
            linalg.yield %r : f32
          } -> tensor<4x16xf32>
          %inside = tensor.extract_slice %y[0, 0] [%m, %n] [1, 1] : tensor<4x16xf32> to tensor<?x?xf32>
          return %inside : tensor<?x?xf32>
        }
        """,
        *PASS,
    )


def test_a_part_that_starts_later():
    check(
        """
        #id = affine_map<(i) -> (i)>
        // CHECK-LABEL: func.func @kernel
        // CHECK: %[[X:.*]] = tensor.extract_slice %arg0[%arg1] [%arg2] [1]
        // CHECK: linalg.generic {{.*}} ins(%[[X]] :
        // CHECK-NOT: extract_slice
        // CHECK: return
        func.func @kernel(%x: tensor<16xf32>, %low: index, %n: index) -> tensor<?xf32> {
          %e = tensor.empty() : tensor<16xf32>
          %y = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]}
            ins(%x : tensor<16xf32>) outs(%e : tensor<16xf32>) {
          ^bb0(%a: f32, %out: f32):
            %p = arith.mulf %a, %a : f32
            linalg.yield %p : f32
          } -> tensor<16xf32>
          %inside = tensor.extract_slice %y[%low] [%n] [1] : tensor<16xf32> to tensor<?xf32>
          return %inside : tensor<?xf32>
        }
        """,
        *PASS,
    )


STAYS = """
    #id = affine_map<(i) -> (i)>
    // CHECK-LABEL: func.func @kernel
    // CHECK: linalg.generic {{.*}} outs({{.*}} : tensor<16xf32>)
    // CHECK: tensor.extract_slice
    func.func @kernel(%x: tensor<16xf32>, %low: index, %n: index) -> (tensor<?xf32>, tensor<16xf32>) {
      %e = tensor.empty() : tensor<16xf32>
      %y = linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]}
        ins(%x : tensor<16xf32>) outs(%DESTINATION : tensor<16xf32>) {
      ^bb0(%a: f32, %out: f32):
        BODY
        linalg.yield %p : f32
      } -> tensor<16xf32>
      %inside = tensor.extract_slice %y[%low] [%n] [1] : tensor<16xf32> to tensor<?xf32>
      return %inside, %RETURNED : tensor<?xf32>, tensor<16xf32>
    }
"""
SQUARE = "%p = arith.mulf %a, %a : f32"


def _stays(destination: str, body: str, returned: str) -> None:
    text = STAYS.replace("DESTINATION", destination).replace("BODY", body).replace("RETURNED", returned)
    check(text, *PASS)


def test_not_what_is_used_as_a_whole():
    _stays("e", SQUARE, "y")


def test_not_what_adds_to_its_destination():
    _stays("x", "%p = arith.addf %a, %out : f32", "x")


def test_not_where_the_place_counts_from_elsewhere():
    body = "%i = linalg.index 0 : index\n%j = arith.index_cast %i : index to i32\n%p = arith.sitofp %j : i32 to f32"
    _stays("e", body, "x")
