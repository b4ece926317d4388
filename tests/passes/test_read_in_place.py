"""read-in-place: whole blocks are read where they are, others from a padded copy."""

from mosaic_compile.passes import Upstream
from mosaic_compile.passes.expand_copies import ExpandCopies
from mosaic_compile.passes.read_in_place import ReadInPlace

from .helpers import check

PASS = (ReadInPlace(), Upstream("canonicalize"), Upstream("cse"))


def test_rows():
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK-DAG: %[[ROWS_FIT:.*]] = arith.cmpi eq, %{{.*}}, %c4
        // CHECK-DAG: %[[COLUMNS_FIT:.*]] = arith.cmpi eq, %{{.*}}, %c8
        // CHECK: %[[WHOLE:.*]] = arith.andi %[[ROWS_FIT]], %[[COLUMNS_FIT]]
        // CHECK: %[[BLOCK:.*]] = scf.if %[[WHOLE]] -> (memref<4x8xf32, strided<[?, 1], offset: ?>>)
        // CHECK-NEXT: memref.cast %arg0
        // CHECK: } else {
        // CHECK: %[[COPY:.*]] = memref.alloc() : memref<4x8xf32>
        // CHECK: linalg.fill ins(%arg4 : f32) outs(%[[COPY]] :
        // CHECK: %[[INSIDE:.*]] = memref.subview %[[COPY]][%arg1, 0]
        // CHECK: linalg.copy ins(%arg0 : {{.*}}) outs(%[[INSIDE]] :
        // CHECK: }
        // CHECK: bufferization.to_tensor %[[BLOCK]] restrict
        // CHECK-NOT: tensor.pad
        func.func @kernel(%x: memref<?x?xf32, strided<[?, 1], offset: ?>>, %low: index, %high: index, %right: index, %pad: f32)
            -> tensor<4x8xf32> {
          %t = bufferization.to_tensor %x restrict : memref<?x?xf32, strided<[?, 1], offset: ?>> to tensor<?x?xf32>
          %p = tensor.pad %t low[%low, 0] high[%high, %right] {
          ^bb0(%i: index, %j: index):
            tensor.yield %pad : f32
          } : tensor<?x?xf32> to tensor<4x8xf32>
          return %p : tensor<4x8xf32>
        }
        """,
        *PASS,
    )


def test_columns_are_copied_as_they_lie():
    """The copy has its neighbours along the same dimension as the array: one layout for both branches."""
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: scf.if {{.*}} -> (memref<4x8xf32, strided<[1, ?], offset: ?>>)
        // CHECK: %[[COPY:.*]] = memref.alloc() : memref<8x4xf32>
        // CHECK: %[[TURNED:.*]] = memref.transpose %[[COPY]] {{.*}} memref<8x4xf32> to memref<4x8xf32, strided<[1, 4]>>
        // CHECK: memref.subview %[[TURNED]]
        func.func @kernel(%x: memref<?x?xf32, strided<[1, ?], offset: ?>>, %high: index, %pad: f32) -> tensor<4x8xf32> {
          %t = bufferization.to_tensor %x restrict : memref<?x?xf32, strided<[1, ?], offset: ?>> to tensor<?x?xf32>
          %p = tensor.pad %t low[0, 0] high[%high, %high] {
          ^bb0(%i: index, %j: index):
            tensor.yield %pad : f32
          } : tensor<?x?xf32> to tensor<4x8xf32>
          return %p : tensor<4x8xf32>
        }
        """,
        *PASS,
    )


def test_without_neighbours_rows_are_copied():
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: scf.if {{.*}} -> (memref<4x8xf32, strided<[?, ?], offset: ?>>)
        // CHECK: memref.alloc() : memref<4x8xf32>
        // CHECK-NOT: memref.transpose
        // CHECK: return
        func.func @kernel(%x: memref<?x?xf32, strided<[?, ?], offset: ?>>, %high: index, %pad: f32) -> tensor<4x8xf32> {
          %t = bufferization.to_tensor %x restrict : memref<?x?xf32, strided<[?, ?], offset: ?>> to tensor<?x?xf32>
          %p = tensor.pad %t low[0, 0] high[%high, %high] {
          ^bb0(%i: index, %j: index):
            tensor.yield %pad : f32
          } : tensor<?x?xf32> to tensor<4x8xf32>
          return %p : tensor<4x8xf32>
        }
        """,
        *PASS,
    )


def test_what_is_padded_after_a_computation_stays():
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: tensor.pad
        // CHECK-NOT: scf.if
        // CHECK: return
        func.func @kernel(%t: tensor<?xf32>, %high: index, %pad: f32) -> tensor<8xf32> {
          %p = tensor.pad %t low[0] high[%high] {
          ^bb0(%i: index):
            tensor.yield %pad : f32
          } : tensor<?xf32> to tensor<8xf32>
          return %p : tensor<8xf32>
        }
        """,
        *PASS,
    )


def test_expand_copies():
    check(
        """
        // CHECK-LABEL: func.func @kernel
        // CHECK: linalg.copy ins(%arg0 : {{.*}}) outs(%arg1 :
        // CHECK-NOT: memref.copy
        func.func @kernel(%x: memref<8xf32, strided<[2]>>, %y: memref<8xf32>) {
          memref.copy %x, %y : memref<8xf32, strided<[2]>> to memref<8xf32>
          return
        }
        """,
        ExpandCopies(),
    )
