// The blocks for any processor.
#include "blocks.h"

#define CAIT_LANES 4
#define CAIT_TILE_ROWS 2
#define CAIT_TILE_VECTORS 4
#include "kernels.h"

namespace cait {
const Kernels *const portable_float = &kKernels<float>, *const portable_bf16 = &kKernels<Bf16>;
}  // namespace cait
