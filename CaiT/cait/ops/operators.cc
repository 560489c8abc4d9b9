// Three Paddle operators, of which an exported CaiT for CPUs consists but for its head: cait_patches, cait_blocks and
// cait_class_blocks. They choose the instruction set when they run, and keep nothing between calls: several predictors
// and threads may use them at once. `pack.py` makes their weights.
#include <omp.h>

#include <cstdlib>
#include <limits>
#include <string>
#include <vector>

#include "blocks.h"
#include "instruction_sets.h"
#include "paddle/extension.h"

namespace {

using cait::InstructionSet;
using cait::Kernels;
using paddle::DataType;
using paddle::Tensor;

// The best there is, or what CAIT_INSTRUCTIONS names, for comparison; null where this processor has no such thing.
const InstructionSet* instruction_set() {
  const char* wanted = std::getenv("CAIT_INSTRUCTIONS");
  static const std::vector<InstructionSet> sets = cait::find_instruction_sets();
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

// A program comes from a file, which may hold anything: nothing is indexed by a size that was not compared before.
void check(bool fits, const char* what) {
  if (!fits) PD_THROW("the weights of the fused program do not fit: ", what);
}

// Of a side of a tensor and of an attribute: far beyond every model, and no product of them overflows in the kernels.
constexpr int64_t kMostOfASide = 1 << 18, kMostImages = 1 << 24, kMostOfAPatch = 1 << 26;

bool is_side(int64_t size) { return 0 < size && size <= kMostOfASide; }

// Whether the elements follow each other; PaddlePaddle 2.6 has no such question.
template <class T>
auto in_one_piece(const T& tensor, int) -> decltype(tensor.is_contiguous()) {
  return tensor.is_contiguous();
}
template <class T>
bool in_one_piece(const T&, long) {
  return true;
}

// That a tensor of so many dimensions lies in one piece where the kernels read it; its shape.
std::vector<int64_t> check_tensor(const Tensor& tensor, bool type_fits, std::size_t dimensions, const char* what) {
  const std::vector<int64_t> shape = tensor.shape();
  check(type_fits && shape.size() == dimensions && tensor.numel() > 0, what);
  check(tensor.initialized() && tensor.is_cpu() && in_one_piece(tensor, 0), what);
  return shape;
}

std::vector<int64_t> check_floats(const Tensor& tensor, std::size_t dimensions, const char* what) {
  return check_tensor(tensor, tensor.dtype() == DataType::FLOAT32, dimensions, what);
}

// The same of panels, of floats or of bfloat16 bit patterns.
std::vector<int64_t> check_panels(const Tensor& tensor, std::size_t dimensions, const char* what) {
  const bool type_fits = tensor.dtype() == DataType::FLOAT32 || tensor.dtype() == DataType::INT16;
  return check_tensor(tensor, type_fits, dimensions, what);
}

void check_elements(const Tensor& tensor, std::size_t elements, const char* what) {
  check(static_cast<std::size_t>(tensor.numel()) == elements, what);
}

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
  const auto in = check_floats(images, 4, "images"), out = check_floats(positions, 2, "positions");
  check(in[0] <= kMostImages && is_side(in[1]) && is_side(in[2]) && is_side(in[3]), "images");
  check(is_side(patch_size) && in[1] * patch_size * patch_size <= kMostOfAPatch, "size of the patches");
  check(is_side(out[0]) && is_side(out[1]) && out[0] == in[2] / patch_size * (in[3] / patch_size), "positions");
  check_panels(panels, 1, "patch embedding");
  const std::size_t depth = cait::padded(static_cast<int>(in[1]) * patch_size * patch_size);
  check_elements(panels, depth * cait::padded(static_cast<int>(out[1])), "patch embedding");
  Tensor result = paddle::empty({in[0], out[0], out[1]}, DataType::FLOAT32, paddle::CPUPlace());
  const cait::PatchCall call{static_cast<int>(in[0]), static_cast<int>(in[1]), static_cast<int>(in[2]),
                             static_cast<int>(in[3]), patch_size, static_cast<int>(out[1]), images.data<float>(),
                             positions.data<float>(), panels.data(), result.data<float>()};
  const Kernels& kernels = kernels_for(panels);
  in_threads(call, kernels.patch_scratch, kernels.patches);
  return {result};
}

cait::Shape shape_of(const Tensor& x, const Tensor& panels, int num_heads, int hidden_dim) {
  const auto size = check_floats(x, 3, "patches"), there = check_panels(panels, 2, "matrices of the blocks");
  check(size[0] <= kMostImages && is_side(size[1]) && is_side(size[2]), "patches");
  check(0 < num_heads && num_heads <= cait::kMostHeads && size[2] % num_heads == 0, "number of heads");
  check(is_side(hidden_dim), "hidden layer");
  check(is_side(there[0]), "number of blocks");
  const cait::Shape shape{static_cast<int>(size[1]), static_cast<int>(size[2]),    num_heads,
                          static_cast<int>(size[2]) / num_heads, hidden_dim, static_cast<int>(there[0])};
  check_elements(panels, shape.depth * shape.panel_elements(), "matrices of the blocks");
  return shape;
}

// That there is a row of so many floats for each block.
void check_vectors(const Tensor& vectors, const cait::Shape& shape, std::size_t elements) {
  check(check_floats(vectors, 2, "vectors of the blocks")[0] == shape.depth, "vectors of the blocks");
  check_elements(vectors, shape.depth * elements, "vectors of the blocks");
}

std::vector<Tensor> run_blocks(const Tensor& x, const Tensor& vectors, const Tensor& panels, int num_heads,
                               int hidden_dim) {
  const cait::Shape shape = shape_of(x, panels, num_heads, hidden_dim);
  check_vectors(vectors, shape, shape.vector_elements());
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
  check_floats(token, 1, "class token");
  check_elements(token, shape.dim, "class token");
  check_vectors(vectors, shape, shape.class_vector_elements());
  const int64_t images = patches.shape()[0];
  check(images * shape.heads * shape.width() <= std::numeric_limits<int>::max(), "number of images");
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
  check(images.size() == 4 && positions.size() == 2, "images and positions");
  return {{images[0], positions[0], positions[1]}};
}
std::vector<Size> blocks_shape(const Size& x, const Size&, const Size&, int, int) { return {x}; }
std::vector<Size> class_blocks_shape(const Size& patches, const Size&, const Size&, const Size& panels, int num_heads,
                                     int) {
  check(patches.size() == 3 && panels.size() == 2, "patches and matrices of the blocks");
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
