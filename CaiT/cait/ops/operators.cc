// Three Paddle operators, of which an exported CaiT for CPUs consists but for its head: cait_patches, cait_blocks and
// cait_class_blocks. They choose the instruction set when they run, and keep nothing between calls: several predictors
// and threads may use them at once. `pack.py` makes their weights.
#include <omp.h>
#ifdef __x86_64__
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include <cstdlib>
#include <string>
#include <vector>

#include "blocks.h"
#include "paddle/extension.h"

namespace {

using cait::Kernels;
using paddle::DataType;
using paddle::Tensor;

struct InstructionSet {
  const char* name;
  bool there;  // in this processor
  const Kernels *with_float, *with_bf16;
};

#ifdef __x86_64__
// Whether there are products of bfloat16 pairs in vectors, which older compilers cannot ask for by name.
bool has_avx512_bf16() {
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 1, &a, &b, &c, &d) && (a & 1u << 5);
}

// Whether there is a matrix unit for bfloat16, and Linux lets this process use it, which must ask for it.
bool may_use_amx() {
  constexpr unsigned kTilesAndBf16 = 1u << 24 | 1u << 22;
  constexpr int kRequest = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned a, b, c, d;
  return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & kTilesAndBf16) == kTilesAndBf16 &&
         syscall(SYS_arch_prctl, kRequest, kTileData) == 0;
}
#endif

// Best first.
std::vector<InstructionSet> find_instruction_sets() {
#ifdef __x86_64__
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  const bool avx512_bf16 = avx512 && cait::avx512_bf16_dot && has_avx512_bf16();
  const bool amx = avx512_bf16 && cait::amx_bf16 && may_use_amx();
#else
  const bool avx2 = false, avx512 = false, avx512_bf16 = false, amx = false;
#endif
  return {
      {"amx", amx, cait::amx_float, cait::amx_bf16},
      {"avx512_bf16", avx512_bf16, cait::avx512_float, cait::avx512_bf16_dot},
      {"avx512", avx512, cait::avx512_float, cait::avx512_bf16},
      {"avx2", avx2, cait::avx2_float, cait::avx2_bf16},
      {"portable", true, cait::portable_float, cait::portable_bf16},
  };
}

// The best there is, or what CAIT_INSTRUCTIONS names, for comparison; null where this processor has no such thing.
const InstructionSet* instruction_set() {
  const char* wanted = std::getenv("CAIT_INSTRUCTIONS");
  static const std::vector<InstructionSet> sets = find_instruction_sets();
  for (const InstructionSet& set : sets) {
    if (set.there && (!wanted || !*wanted || std::string(wanted) == set.name)) return &set;
  }
  return nullptr;
}

const Kernels& kernels_for(const Tensor& panels) {
  const InstructionSet* set = instruction_set();
  if (!set) PD_THROW("CAIT_INSTRUCTIONS is not what this processor has: amx, avx512_bf16, avx512, avx2 or portable");
  return panels.dtype() == DataType::FLOAT32 ? *set->with_float : *set->with_bf16;
}

void check(bool fits, const char* what) {
  if (!fits) PD_THROW("the weights of the fused program do not fit: ", what);
}

void check_size(const Tensor& tensor, int64_t elements, const char* what) { check(tensor.numel() == elements, what); }

// Runs `work` in as many threads as Paddle uses, with scratch memory from Paddle's allocator.
template <class Call>
void in_threads(const Call& call, std::size_t (*bytes)(const Call&, int), void (*work)(const Call&, const cait::Team&)) {
  constexpr std::size_t kLine = 64;
  const int wanted = omp_get_max_threads();
  Tensor memory = paddle::empty({static_cast<int64_t>(bytes(call, wanted) + kLine)}, DataType::UINT8, paddle::CPUPlace());
  char* scratch = reinterpret_cast<char*>((reinterpret_cast<std::uintptr_t>(memory.data<uint8_t>()) + kLine - 1) / kLine * kLine);
  std::atomic<cait::Barrier*> shared{nullptr};
#pragma omp parallel num_threads(wanted)
  {
    // There may be fewer threads than were asked for.
#pragma omp single
    shared = new cait::Barrier(omp_get_num_threads());
    work(call, cait::Team{scratch, omp_get_thread_num(), omp_get_num_threads(), shared});
  }
  delete shared.load();
}

std::vector<Tensor> run_patches(const Tensor& images, const Tensor& positions, const Tensor& panels, int patch_size) {
  const auto in = images.shape(), out = positions.shape();
  check(in.size() == 4 && out.size() == 2 && patch_size > 0, "images and positions");
  const int64_t depth = cait::padded(in[1] * patch_size * patch_size);
  check(images.dtype() == DataType::FLOAT32 && out[0] == in[2] / patch_size * (in[3] / patch_size), "positions");
  check_size(panels, depth * cait::padded(out[1]), "patch embedding");
  Tensor result = paddle::empty({in[0], out[0], out[1]}, DataType::FLOAT32, paddle::CPUPlace());
  const cait::PatchCall call{static_cast<int>(in[0]), static_cast<int>(in[1]), static_cast<int>(in[2]),
                             static_cast<int>(in[3]), patch_size, static_cast<int>(out[1]), images.data<float>(),
                             positions.data<float>(), panels.data(), result.data<float>()};
  const Kernels& kernels = kernels_for(panels);
  in_threads(call, kernels.patch_scratch, kernels.patches);
  return {result};
}

cait::Shape shape_of(const Tensor& x, const Tensor& panels, int num_heads, int hidden_dim) {
  const auto size = x.shape();
  check(x.dtype() == DataType::FLOAT32 && size.size() == 3 && panels.shape().size() == 2, "patches");
  check(0 < num_heads && num_heads <= cait::kMostHeads && size[2] % num_heads == 0, "number of heads");
  return {static_cast<int>(size[1]), static_cast<int>(size[2]), num_heads, static_cast<int>(size[2]) / num_heads,
          hidden_dim, static_cast<int>(panels.shape()[0])};
}

std::vector<Tensor> run_blocks(const Tensor& x, const Tensor& vectors, const Tensor& panels, int num_heads,
                               int hidden_dim) {
  const cait::Shape shape = shape_of(x, panels, num_heads, hidden_dim);
  check_size(vectors, shape.depth * shape.vector_elements(), "vectors of the blocks");
  check_size(panels, shape.depth * shape.panel_elements(), "matrices of the blocks");
  Tensor result = paddle::empty(x.shape(), DataType::FLOAT32, paddle::CPUPlace());
  const cait::BlockCall call{shape,          static_cast<int>(x.shape()[0]), x.data<float>(), vectors.data<float>(),
                             panels.data(), result.data<float>()};
  const Kernels& kernels = kernels_for(panels);
  in_threads(call, kernels.block_scratch, kernels.blocks);
  return {result};
}

std::vector<Tensor> run_class_blocks(const Tensor& patches, const Tensor& token, const Tensor& vectors,
                                     const Tensor& panels, int num_heads, int hidden_dim) {
  const cait::Shape shape = shape_of(patches, panels, num_heads, hidden_dim);
  check_size(token, shape.dim, "class token");
  check_size(vectors, shape.depth * shape.class_vector_elements(), "vectors of the class-attention blocks");
  check_size(panels, shape.depth * shape.panel_elements(), "matrices of the class-attention blocks");
  const int64_t images = patches.shape()[0];
  Tensor result = paddle::empty({images, shape.dim}, DataType::FLOAT32, paddle::CPUPlace());
  Tensor attention =
      paddle::empty({images, shape.depth, num_heads, 1 + shape.tokens}, DataType::FLOAT32, paddle::CPUPlace());
  const cait::ClassCall call{shape,           static_cast<int>(images), patches.data<float>(), token.data<float>(),
                             vectors.data<float>(), panels.data(), result.data<float>(), attention.data<float>()};
  const Kernels& kernels = kernels_for(panels);
  in_threads(call, kernels.class_scratch, kernels.class_blocks);
  return {result, attention};
}

typedef std::vector<int64_t> Size;

std::vector<Size> patches_shape(const Size& images, const Size& positions, const Size&, int) {
  return {{images[0], positions[0], positions[1]}};
}
std::vector<Size> blocks_shape(const Size& x, const Size&, const Size&, int, int) { return {x}; }
std::vector<Size> class_blocks_shape(const Size& patches, const Size&, const Size&, const Size& panels, int num_heads,
                                     int) {
  return {{patches[0], patches[2]}, {patches[0], panels[0], num_heads, 1 + patches[1]}};
}

std::vector<DataType> one_dtype(DataType x, DataType, DataType) { return {x}; }
std::vector<DataType> two_dtypes(DataType patches, DataType, DataType, DataType) { return {patches, patches}; }

}  // namespace

// The instruction set that these operators use here, or nothing; for the log, through ctypes.
extern "C" const char* cait_instruction_set() { return instruction_set() ? instruction_set()->name : ""; }

PD_BUILD_OP(cait_patches)
    .Inputs({"Images", "Positions", "Panels"})
    .Outputs({"Out"})
    .Attrs({"patch_size: int"})
    .SetKernelFn(PD_KERNEL(run_patches))
    .SetInferShapeFn(PD_INFER_SHAPE(patches_shape))
    .SetInferDtypeFn(PD_INFER_DTYPE(one_dtype));

PD_BUILD_OP(cait_blocks)
    .Inputs({"X", "Vectors", "Panels"})
    .Outputs({"Out"})
    .Attrs({"num_heads: int", "hidden_dim: int"})
    .SetKernelFn(PD_KERNEL(run_blocks))
    .SetInferShapeFn(PD_INFER_SHAPE(blocks_shape))
    .SetInferDtypeFn(PD_INFER_DTYPE(one_dtype));

PD_BUILD_OP(cait_class_blocks)
    .Inputs({"Patches", "Token", "Vectors", "Panels"})
    .Outputs({"Out", "Attention"})
    .Attrs({"num_heads: int", "hidden_dim: int"})
    .SetKernelFn(PD_KERNEL(run_class_blocks))
    .SetInferShapeFn(PD_INFER_SHAPE(class_blocks_shape))
    .SetInferDtypeFn(PD_INFER_DTYPE(two_dtypes));
