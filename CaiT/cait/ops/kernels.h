// All kernels, for the instruction set that the including file has chosen.
// In an unnamed namespace, so that each of those files has its own. The parts have neither guards nor includes, and
// each may use those before it. The including file has included blocks.h before it chose.
namespace cait {
namespace {
#include "simd.h"
#include "product.h"
#include "vector_tile.h"
#ifdef CAIT_MATRIX_UNIT
#include "matrix_tile.h"
#endif
#include "rows.h"
#include "self_attention.h"
#include "patches.h"
#include "class_attention.h"

template <class T>
constexpr Kernels kKernels{patch_scratch<T>, patches<T>,       block_scratch<T>,
                           blocks<T>,        class_scratch<T>, class_blocks<T>};
}  // namespace
}  // namespace cait
