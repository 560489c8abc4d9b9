// Runs the operators' kernels and the loops that resize images under the sanitizers of the compiler: every instruction
// set of this processor, the shapes of test_ops.py and images as in test_pixels.py, in memory of exactly the size that
// is promised. Prints what it ran; what a sanitizer finds ends it.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <random>
#include <thread>
#include <vector>

#include "blocks.h"
#include "instruction_sets.h"

extern "C" {
#define LOOPS(name)                                                                                            \
  int cait_resize_##name(const std::uint8_t*, int, int, int, std::uint8_t*, int, int, int, int, int, int, int, int); \
  int cait_transform_##name(const std::uint8_t*, int, int, const double*, std::int32_t, std::uint8_t*);
LOOPS(avx2)
LOOPS(avx512)
}

namespace {

using cait::Kernels;
std::mt19937 generator(0);

int whole(int least, int most) { return std::uniform_int_distribution<int>(least, most)(generator); }

std::vector<float> floats(std::size_t count) {
  std::vector<float> values(count);
  std::uniform_real_distribution<float> spread(-0.2f, 0.2f);
  for (float& value : values) value = spread(generator);
  values.shrink_to_fit();
  return values;
}

// As many floats, or as many bfloat16: values of either.
std::vector<char> panels(std::size_t count, bool bf16) {
  const std::vector<float> values = floats(count);
  std::vector<char> bytes(count * (bf16 ? 2 : 4));
  for (std::size_t i = 0; i < count; ++i) {
    const char* from = reinterpret_cast<const char*>(&values[i]);
    std::memcpy(&bytes[i * (bf16 ? 2 : 4)], bf16 ? from + 2 : from, bf16 ? 2 : 4);
  }
  return bytes;
}

// Calls a kernel in a team that has as many threads as were asked for, or fewer.
template <class Call>
void run(const Call& call, std::size_t (*bytes)(const Call&, int), void (*work)(const Call&, const cait::Team&),
         int wanted, int there) {
  const std::size_t size = (bytes(call, wanted) + 63) / 64 * 64;
  std::unique_ptr<char, decltype(&std::free)> scratch(static_cast<char*>(std::aligned_alloc(64, size)), std::free);
  std::memset(scratch.get(), 0xff, size);  // NaN
  cait::Barrier barrier(there);
  std::vector<std::thread> threads;
  for (int t = 0; t < there; ++t) {
    threads.emplace_back([&, t] { work(call, cait::Team{scratch.get(), t, there, &barrier}); });
  }
  for (std::thread& thread : threads) thread.join();
}

struct Case {
  int side, patch, dim, heads, hidden, class_hidden, images;
};

void run_kernels(const Kernels& kernels, bool bf16, const Case& c, int wanted, int there) {
  const int across = c.side / c.patch, tokens = across * across;
  const cait::Shape shape{tokens, c.dim, c.heads, c.dim / c.heads, c.hidden, 2};
  const cait::Shape class_shape{tokens, c.dim, c.heads, c.dim / c.heads, c.class_hidden, 2};
  const auto images = floats(static_cast<std::size_t>(c.images) * 3 * c.side * c.side);
  const auto positions = floats(static_cast<std::size_t>(tokens) * c.dim), token = floats(c.dim);
  const std::size_t size = static_cast<std::size_t>(c.images) * tokens * c.dim;
  std::vector<float> x(size), y(size), last(static_cast<std::size_t>(c.images) * c.dim);
  std::vector<float> attention(static_cast<std::size_t>(c.images) * 2 * c.heads * (1 + tokens));
  const auto patch_panels =
      panels(static_cast<std::size_t>(cait::padded(3 * c.patch * c.patch)) * cait::padded(c.dim), bf16);
  const auto vectors = floats(2 * shape.vector_elements()), class_vectors = floats(2 * class_shape.class_vector_elements());
  const auto matrices = panels(2 * shape.panel_elements(), bf16);
  const auto class_matrices = panels(2 * class_shape.panel_elements(), bf16);
  const cait::PatchCall first{c.images, 3, c.side, c.side, c.patch, c.dim, images.data(), positions.data(),
                              patch_panels.data(), x.data()};
  run(first, kernels.patch_scratch, kernels.patches, wanted, there);
  const cait::BlockCall second{shape, c.images, x.data(), vectors.data(), matrices.data(), y.data()};
  run(second, kernels.block_scratch, kernels.blocks, wanted, there);
  const cait::ClassCall third{class_shape,           c.images,    y.data(),        token.data(), class_vectors.data(),
                              class_matrices.data(), last.data(), attention.data()};
  run(third, kernels.class_scratch, kernels.class_blocks, wanted, there);
  for (float value : last) {
    if (!std::isfinite(value)) std::printf("not finite\n"), std::exit(1);
  }
}

typedef decltype(&cait_resize_avx2) Resize;
typedef decltype(&cait_transform_avx2) Transform;

void run_loops(Resize resize, Transform transform) {
  for (int number = 0; number < 240; ++number) {
    const int most = number % 3 == 0 ? 300 : number % 3 == 1 ? 60 : 6, channels = number % 2 ? 1 : 4;
    const int width = whole(1, most), height = whole(1, most), wide = whole(1, most), high = whole(1, most);
    const int left = whole(0, wide - 1), top = whole(0, high - 1);
    const int kept_width = whole(1, wide - left), kept_height = whole(1, high - top);
    std::vector<std::uint8_t> in(static_cast<std::size_t>(width) * height * channels), out;
    for (auto& byte : in) byte = whole(0, 255);
    out.resize(static_cast<std::size_t>(kept_width) * kept_height * std::min(channels, 3));
    if (resize(in.data(), channels, width, height, out.data(), wide, high, left, top, kept_width, kept_height,
               whole(0, 1), whole(0, 1))) {
      std::exit(1);
    }
    if (channels != 4) continue;
    std::uniform_real_distribution<double> spread(-1.5, 1.5);
    double matrix[6];
    for (double& value : matrix) value = spread(generator);
    matrix[2] *= width;
    matrix[5] *= height;
    std::vector<std::uint8_t> moved(in.size());
    if (transform(in.data(), width, height, matrix, 0x01020304, moved.data())) std::exit(1);
  }
}

}  // namespace

int main() {
  // As SHAPES of test_ops.py: image side, patch, dim, heads, hidden layers, batch.
  const Case cases[] = {{32, 8, 192, 4, 768, 384, 2},  {48, 8, 288, 6, 288, 576, 1}, {24, 8, 384, 8, 384, 768, 3},
                        {32, 8, 768, 16, 384, 1536, 1}, {30, 5, 40, 4, 92, 80, 3},    {21, 7, 60, 5, 78, 120, 5},
                        {112, 8, 24, 2, 36, 48, 1},     {144, 8, 48, 2, 1536, 96, 1}};
  for (const cait::InstructionSet& set : cait::find_instruction_sets()) {
    if (!set.there) continue;
    for (const Case& c : cases) {
      for (const auto& [wanted, there] : {std::pair<int, int>{1, 1}, {2, 2}, {3, 3}, {5, 2}}) {
        run_kernels(*set.with_float, false, c, wanted, there);
        run_kernels(*set.with_bf16, true, c, wanted, there);
      }
    }
    std::printf("kernels %s\n", set.name);
  }
#ifdef __x86_64__
  if (__builtin_cpu_supports("avx2")) {
    run_loops(cait_resize_avx2, cait_transform_avx2);
    std::printf("loops avx2\n");
  }
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq")) {
    run_loops(cait_resize_avx512, cait_transform_avx512);
    std::printf("loops avx512\n");
  }
#endif
}
