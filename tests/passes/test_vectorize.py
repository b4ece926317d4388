"""vectorize: which loops become vectors, how rows are cut, how sums are kept; and what stays."""

from mosaic_compile.passes import Upstream
from mosaic_compile.passes.vectorize import Vectorize

from .helpers import check

PASS = (Vectorize(32), Upstream("canonicalize"), Upstream("cse"))  # eight f32


def test_rows_and_what_is_left_of_them():
    """37 = 4 * 8 + 4 + 1."""
    check(
        """
        #id = affine_map<(i, j) -> (i, j)>
        #row = affine_map<(i, j) -> (0, j)>
        #column = affine_map<(i, j) -> (i, 0)>
        // CHECK-LABEL: func.func @kernel
        // CHECK: scf.for %[[I:.*]] = %c0 to %c4
        // CHECK: memref.load %arg2[%[[I]], %c0]
        // CHECK: scf.for %[[J:.*]] = %c0 to %c32 step %c8
        // CHECK: vector.load %arg0[%[[I]], %[[J]]] : memref<4x37xf32>, vector<8xf32>
        // CHECK: vector.load %arg1[%c0, %[[J]]] : memref<1x37xf32>, vector<8xf32>
        // CHECK: arith.mulf {{.*}} : vector<8xf32>
        // CHECK: arith.addf {{.*}} : vector<8xf32>
        // CHECK: vector.store {{.*}} vector<8xf32>
        // CHECK: vector.store {{.*}} vector<4xf32>
        // CHECK: memref.store
        // CHECK-NOT: linalg
        func.func @kernel(%x: memref<4x37xf32>, %w: memref<1x37xf32>, %b: memref<4x1xf32>, %y: memref<4x37xf32>) {
          linalg.generic {indexing_maps = [#id, #row, #column, #id], iterator_types = ["parallel", "parallel"]}
            ins(%x, %w, %b : memref<4x37xf32>, memref<1x37xf32>, memref<4x1xf32>) outs(%y : memref<4x37xf32>) {
          ^bb0(%a: f32, %c: f32, %d: f32, %out: f32):
            %p = arith.mulf %a, %c : f32
            %s = arith.addf %p, %d : f32
            linalg.yield %s : f32
          }
          return
        }
        """,
        *PASS,
    )


NEGATED = """
    #id = affine_map<(i) -> (i)>
    // CHECK-LABEL: func.func @kernel
    CHECKS
    func.func @kernel(%x: memref<?xf32>, %y: memref<?xf32>) {
      linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]}
        ins(%x : memref<?xf32>) outs(%DESTINATION : memref<?xf32>) {
      ^bb0(%a: f32, %out: f32):
        %n = arith.negf %a : f32
        linalg.yield %n : f32
      }
      return
    }
"""


def test_sizes_known_at_run_time():
    """Whole vectors, of which the last ends where the row does; single elements where not one fits."""
    checks = """
    // CHECK: %[[N:.*]] = memref.dim %arg0
    // CHECK: %[[LAST:.*]] = arith.subi %[[N]], %c8
    // CHECK: %[[FITS:.*]] = arith.cmpi sge, %[[LAST]], %c0
    // CHECK: scf.if %[[FITS]]
    // CHECK: scf.for %[[I:.*]] = %c0 to %[[N]] step %c8
    // CHECK: %[[PLACE:.*]] = arith.minsi %[[I]], %[[LAST]]
    // CHECK: vector.store {{.*}}, %arg1[%[[PLACE]]]
    // CHECK: else
    // CHECK: scf.for %{{.*}} = %c0 to %[[N]] step %c1
    // CHECK: memref.store
    """
    check(NEGATED.replace("CHECKS", checks).replace("DESTINATION", "y"), *PASS)


def test_sizes_known_at_run_time_in_place():
    """Nothing is negated twice: whole vectors, then single elements."""
    checks = """
    // CHECK: %[[N:.*]] = memref.dim %arg0
    // CHECK: %[[REST:.*]] = arith.remui %[[N]], %c8
    // CHECK: %[[WHOLE:.*]] = arith.subi %[[N]], %[[REST]]
    // CHECK: scf.for %{{.*}} = %c0 to %[[WHOLE]] step %c8
    // CHECK: vector.store
    // CHECK: scf.for %{{.*}} = %[[WHOLE]] to %[[N]] step %c1
    // CHECK: memref.store
    """
    check(NEGATED.replace("CHECKS", checks).replace("DESTINATION", "x"), *PASS)


def test_a_maximum_is_folded_by_halves():
    check(
        """
        #id = affine_map<(i) -> (i)>
        #none = affine_map<(i) -> ()>
        // CHECK-LABEL: func.func @kernel
        // CHECK-COUNT-8: vector.load
        // CHECK: scf.for {{.*}} step %c64
        // CHECK-COUNT-8: arith.maximumf {{.*}} : vector<8xf32>
        // CHECK: scf.yield
        // CHECK: vector.shuffle {{.*}} [4, 5, 6, 7, 0, 1, 2, 3]
        // CHECK-NEXT: arith.maximumf {{.*}} : vector<8xf32>
        // CHECK-NEXT: vector.shuffle {{.*}} [2, 3, 4, 5, 6, 7, 0, 1]
        // CHECK-NEXT: arith.maximumf {{.*}} : vector<8xf32>
        // CHECK-NEXT: vector.shuffle {{.*}} [1, 2, 3, 4, 5, 6, 7, 0]
        // CHECK-NEXT: arith.maximumf {{.*}} : vector<8xf32>
        // CHECK-NEXT: vector.extract {{.*}}[0]
        // CHECK-NOT: vector.reduction
        func.func @kernel(%x: memref<256xf32>, %y: memref<f32>) {
          linalg.generic {indexing_maps = [#id, #none], iterator_types = ["reduction"]}
            ins(%x : memref<256xf32>) outs(%y : memref<f32>) {
          ^bb0(%a: f32, %out: f32):
            %m = arith.maximumf %out, %a : f32
            linalg.yield %m : f32
          }
          return
        }
        """,
        *PASS,
    )


def test_the_widest_type_decides():
    check(
        """
        #id = affine_map<(i) -> (i)>
        // CHECK-LABEL: func.func @kernel
        // CHECK: vector.load {{.*}} vector<4xbf16>
        // CHECK: arith.extf {{.*}} : vector<4xbf16> to vector<4xf64>
        // CHECK: vector.store {{.*}} vector<4xf64>
        func.func @kernel(%x: memref<64xbf16>, %y: memref<64xf64>) {
          linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]}
            ins(%x : memref<64xbf16>) outs(%y : memref<64xf64>) {
          ^bb0(%a: bf16, %out: f64):
            %n = arith.extf %a : bf16 to f64
            linalg.yield %n : f64
          }
          return
        }
        """,
        *PASS,
    )


def test_sums_along_a_row_are_kept_in_four_vectors():
    """The first vectors start the sums; reassociation goes on to the last sum."""
    check(
        """
        #id = affine_map<(i, j) -> (i, j)>
        #kept = affine_map<(i, j) -> (i)>
        // CHECK-LABEL: func.func @kernel
        // CHECK: scf.for %[[I:.*]] = %c0 to %c4
        // CHECK: %[[START:.*]] = memref.load %arg1[%[[I]]]
        // CHECK-COUNT-4: vector.load %arg0
        // CHECK: scf.for %{{.*}} = %c32 to %c96 step %c32 iter_args(%{{.*}}, %{{.*}}, %{{.*}}, %{{.*}}) -> (vector<8xf32>, vector<8xf32>, vector<8xf32>, vector<8xf32>)
        // CHECK: arith.addf {{.*}} fastmath<reassoc> : vector<8xf32>
        // CHECK: vector.reduction <add>, {{.*}} fastmath<reassoc> : vector<8xf32> into f32
        // CHECK: arith.addf %[[START]]
        // CHECK: memref.store {{.*}}, %arg1[%[[I]]]
        func.func @kernel(%x: memref<4x96xf32>, %y: memref<4xf32>) {
          linalg.generic {indexing_maps = [#id, #kept], iterator_types = ["parallel", "reduction"]}
            ins(%x : memref<4x96xf32>) outs(%y : memref<4xf32>) {
          ^bb0(%a: f32, %out: f32):
            %s = arith.addf %out, %a fastmath<reassoc> : f32
            linalg.yield %s : f32
          }
          return
        }
        """,
        *PASS,
    )


def test_what_is_reduced_may_be_computed_or_come_from_outside():
    check(
        """
        #id = affine_map<(i) -> (i)>
        #none = affine_map<(i) -> ()>
        // CHECK-LABEL: func.func @kernel
        // CHECK: vector.broadcast %arg1 : i32 to vector<8xi32>
        // CHECK: vector.reduction <minsi>
        // CHECK: vector.reduction <add>
        func.func @kernel(%x: memref<16xi32>, %other: i32, %least: memref<i32>, %sum: memref<i32>) {
          linalg.generic {indexing_maps = [#id, #none, #none], iterator_types = ["reduction"]}
            ins(%x : memref<16xi32>) outs(%least, %sum : memref<i32>, memref<i32>) {
          ^bb0(%a: i32, %l: i32, %s: i32):
            %m = arith.minsi %l, %other : i32
            %q = arith.muli %a, %a : i32
            %t = arith.addi %s, %q : i32
            linalg.yield %m, %t : i32, i32
          }
          return
        }
        """,
        *PASS,
    )


def test_sums_of_columns_stay_in_registers():
    check(
        """
        #id = affine_map<(i, j) -> (i, j)>
        #kept = affine_map<(i, j) -> (j)>
        // CHECK-LABEL: func.func @kernel
        // CHECK: scf.for %[[J:.*]] = %c0 to %c64 step %c8
        // CHECK: %[[START:.*]] = vector.load %arg1[%[[J]]]
        // CHECK: %[[SUM:.*]] = scf.for %[[I:.*]] = %c0 to %c5 step %c1 iter_args(%{{.*}} = %[[START]])
        // CHECK: vector.load %arg0[%[[I]], %[[J]]]
        // CHECK: vector.store %[[SUM]], %arg1[%[[J]]]
        func.func @kernel(%x: memref<5x64xf32>, %y: memref<64xf32>) {
          linalg.generic {indexing_maps = [#id, #kept], iterator_types = ["reduction", "parallel"]}
            ins(%x : memref<5x64xf32>) outs(%y : memref<64xf32>) {
          ^bb0(%a: f32, %out: f32):
            %s = arith.addf %out, %a : f32
            linalg.yield %s : f32
          }
          return
        }
        """,
        *PASS,
    )


def test_the_dimension_whose_elements_are_neighbours():
    """Both operands lie in columns: the vectors run down them."""
    check(
        """
        #id = affine_map<(i, j) -> (i, j)>
        // CHECK-LABEL: func.func @kernel
        // CHECK: memref.transpose %arg0
        // CHECK: scf.for %{{.*}} = %c0 to %c6
        // CHECK: scf.for %{{.*}} = %c0 to %c16 step %c8
        // CHECK: vector.load
        func.func @kernel(%x: memref<16x6xf32, strided<[1, 16]>>, %y: memref<16x6xf32, strided<[1, 16]>>) {
          linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel", "parallel"]}
            ins(%x : memref<16x6xf32, strided<[1, 16]>>) outs(%y : memref<16x6xf32, strided<[1, 16]>>) {
          ^bb0(%a: f32, %out: f32):
            %n = arith.negf %a : f32
            linalg.yield %n : f32
          }
          return
        }
        """,
        *PASS,
    )


def test_places_are_vectors_too():
    check(
        """
        #id = affine_map<(i, j) -> (i, j)>
        // CHECK-LABEL: func.func @kernel
        // CHECK: scf.for %[[I:.*]] = %c0 to %c4
        // CHECK: %[[ROW:.*]] = vector.broadcast %[[I]] : index to vector<8xindex>
        // CHECK: %[[STEP:.*]] = vector.step : vector<8xindex>
        // CHECK: %[[COLUMN:.*]] = arith.addi {{.*}}, %[[STEP]] : vector<8xindex>
        // CHECK: arith.addi %[[ROW]], %[[COLUMN]] : vector<8xindex>
        // CHECK: vector.store
        func.func @kernel(%y: memref<4x16xi32>) {
          linalg.generic {indexing_maps = [#id], iterator_types = ["parallel", "parallel"]} outs(%y : memref<4x16xi32>) {
          ^bb0(%out: i32):
            %i = linalg.index 0 : index
            %j = linalg.index 1 : index
            %s = arith.addi %i, %j : index
            %r = arith.index_cast %s : index to i32
            linalg.yield %r : i32
          }
          return
        }
        """,
        Vectorize(32),
        Upstream("cse"),
    )


def stays(text: str) -> None:
    check("// CHECK: linalg.generic\n" + text, Vectorize(32))


def test_truth_values_in_memory_stay():
    """A vector of them has no bytes of its own."""
    stays(
        """
        #id = affine_map<(i) -> (i)>
        func.func @kernel(%x: memref<16xf32>, %y: memref<16xi1>) {
          linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]}
            ins(%x : memref<16xf32>) outs(%y : memref<16xi1>) {
          ^bb0(%a: f32, %out: i1):
            %r = arith.cmpf olt, %a, %a : f32
            linalg.yield %r : i1
          }
          return
        }
        """
    )


def test_strided_elements_stay():
    stays(
        """
        #id = affine_map<(i) -> (i)>
        func.func @kernel(%x: memref<16xf32, strided<[2]>>, %y: memref<16xf32>) {
          linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]}
            ins(%x : memref<16xf32, strided<[2]>>) outs(%y : memref<16xf32>) {
          ^bb0(%a: f32, %out: f32):
            linalg.yield %a : f32
          }
          return
        }
        """
    )


def test_bodies_that_read_memory_stay():
    stays(
        """
        #id = affine_map<(i) -> (i)>
        func.func @kernel(%x: memref<16xindex>, %table: memref<9xf32>, %y: memref<16xf32>) {
          linalg.generic {indexing_maps = [#id, #id], iterator_types = ["parallel"]}
            ins(%x : memref<16xindex>) outs(%y : memref<16xf32>) {
          ^bb0(%a: index, %out: f32):
            %v = memref.load %table[%a] : memref<9xf32>
            linalg.yield %v : f32
          }
          return
        }
        """
    )


def test_reductions_that_are_no_single_operation_stay():
    stays(
        """
        #id = affine_map<(i) -> (i)>
        #none = affine_map<(i) -> ()>
        func.func @kernel(%x: memref<16xf32>, %y: memref<f32>) {
          linalg.generic {indexing_maps = [#id, #none], iterator_types = ["reduction"]}
            ins(%x : memref<16xf32>) outs(%y : memref<f32>) {
          ^bb0(%a: f32, %out: f32):
            %h = arith.mulf %out, %a : f32
            %s = arith.addf %h, %out : f32
            linalg.yield %s : f32
          }
          return
        }
        """
    )


def test_sums_along_two_dimensions_at_once_stay():
    stays(
        """
        #id = affine_map<(i, j) -> (i, j)>
        #none = affine_map<(i, j) -> ()>
        func.func @kernel(%x: memref<4x16xf32>, %y: memref<f32>) {
          linalg.generic {indexing_maps = [#id, #none], iterator_types = ["reduction", "reduction"]}
            ins(%x : memref<4x16xf32>) outs(%y : memref<f32>) {
          ^bb0(%a: f32, %out: f32):
            %s = arith.addf %out, %a : f32
            linalg.yield %s : f32
          }
          return
        }
        """
    )
