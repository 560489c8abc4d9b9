// Pillow's antialiased bicubic `resize` and its bicubic affine `transform`, bit for bit, several times as fast.
//
// The arithmetic is Pillow's (src/libImaging/Resample.c, Geometry.c): to resize, weights in float64, rounded to 22 bits
// behind the point, sums in int32, each of the two passes rounded to bytes; to transform, cubic polynomials in float64.
// What makes it fast are vectors. The functions that turn bytes into vectors and back are those of AVX-512 or AVX2, the
// rest is the vector extension of GCC and Clang. To be compiled with -ffp-contract=off: a fused multiplication and
// addition rounds once, not twice.
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <vector>

namespace {

using Byte = std::uint8_t;
typedef std::int32_t Ints4 __attribute__((vector_size(16)));
typedef std::int32_t Ints8 __attribute__((vector_size(32)));
typedef double Doubles __attribute__((vector_size(32)));

#ifdef __AVX512BW__
typedef std::int32_t Ints __attribute__((vector_size(64)));
inline Ints widened(const Byte* from) {
  return (Ints)_mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
inline void store(Byte* to, Ints v) {  // those below 0 as 0, those above 255 as 255
  const __m512i positive = _mm512_max_epi32((__m512i)v, __m512i{});
  _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm512_cvtusepi32_epi8(positive));
}
inline Ints4 folded(Ints v) {
  const Ints8 half = (Ints8)_mm512_castsi512_si256((__m512i)v) + (Ints8)_mm512_extracti64x4_epi64((__m512i)v, 1);
  return (Ints4)_mm256_castsi256_si128((__m256i)half) + (Ints4)_mm256_extracti128_si256((__m256i)half, 1);
}
#else
using Ints = Ints8;
inline Ints widened(const Byte* from) {
  return (Ints)_mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
}
inline void store(Byte* to, Ints v) {  // those below 0 as 0, those above 255 as 255
  const __m128i lower = _mm256_castsi256_si128((__m256i)v), upper = _mm256_extracti128_si256((__m256i)v, 1);
  const __m128i words = _mm_packs_epi32(lower, upper);
  _mm_storel_epi64(reinterpret_cast<__m128i*>(to), _mm_packus_epi16(words, words));
}
inline Ints4 folded(Ints v) {
  return (Ints4)_mm256_castsi256_si128((__m256i)v) + (Ints4)_mm256_extracti128_si256((__m256i)v, 1);
}
#endif
constexpr int kLanes = sizeof(Ints) / 4;  // bytes that are worked on at a time

constexpr int kBits = 32 - 8 - 2;  // of a weight, behind the point
constexpr std::int32_t kHalf = 1 << (kBits - 1);

template <class V>
inline V load(const void* from) {
  V value;
  std::memcpy(&value, from, sizeof value);
  return value;
}

// The pixels of a side that weigh in on each pixel of the resized side, and their weights.
struct Taps {
  std::vector<int> first, count;
  std::vector<std::int32_t> weights;  // `room` for each pixel, the rest 0
  int room, most;                     // `most` of a count
};

double bicubic(double x) {
  constexpr double a = -0.5;
  x = std::fabs(x);
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1;
  if (x < 2.0) return (((x - 5) * x + 8) * x - 4) * a;
  return 0.0;
}

// Of the `kept` pixels from `start` on, of a side that is resized from `size` to `resized` pixels.
Taps find_taps(int size, int resized, int start, int kept, bool backwards) {
  const double scale = static_cast<double>(size) / resized, filter_scale = std::max(scale, 1.0);
  const double support = 2.0 * filter_scale, step = 1.0 / filter_scale;
  Taps taps;
  taps.room = static_cast<int>(std::ceil(support)) * 2 + 1;
  taps.most = 0;
  taps.first.resize(kept);
  taps.count.resize(kept);
  taps.weights.assign(static_cast<std::size_t>(kept) * taps.room, 0);
  std::vector<double> exact(taps.room);
  for (int i = 0; i < kept; ++i) {
    const int place = start + (backwards ? kept - 1 - i : i);
    const double center = (place + 0.5) * scale;
    const int first = std::max(static_cast<int>(center - support + 0.5), 0);
    const int count = std::min(static_cast<int>(center + support + 0.5), size) - first;
    double total = 0.0;
    for (int k = 0; k < count; ++k) total += exact[k] = bicubic((k + first - center + 0.5) * step);
    for (int k = 0; k < count; ++k) {
      const double weight = (total != 0.0 ? exact[k] / total : exact[k]) * (1 << kBits);
      taps.weights[static_cast<std::size_t>(i) * taps.room + k] = static_cast<int>(weight + (weight < 0 ? -0.5 : 0.5));
    }
    taps.first[i] = first;
    taps.count[i] = count;
    taps.most = std::max(taps.most, count);
  }
  return taps;
}

// The rows [first, end) of bytes in memory, each of which may be read `slack` bytes beyond its end: those that lie so
// near to the end of the memory are copied.
class Rows {
 public:
  Rows(const Byte* begin, int first, int end, int stride, int slack)
      : begin_(begin), first_(first), tail_(std::max(first, end - 1 - slack / stride)), stride_(stride) {
    copy_.resize((end - tail_) * stride_ + slack);
    std::memcpy(copy_.data(), begin_ + (tail_ - first_) * stride_, (end - tail_) * stride_);
  }
  const Byte* operator[](int row) const {
    return row < tail_ ? begin_ + (row - first_) * stride_ : copy_.data() + (row - tail_) * stride_;
  }

 private:
  const Byte* begin_;
  int first_, tail_;
  std::size_t stride_;
  std::vector<Byte> copy_;
};

// One pass along the rows: pixels of `C` bytes in, of `out_bytes` out; 4 bytes are stored where they are 3.
template <int C>
class Across {
 public:
  explicit Across(const Taps& taps) : taps_(taps), vectors_((taps.most * C + kLanes - 1) / kLanes) {
    constexpr int kPixels = kLanes / C;
    weights_.resize(taps.first.size() * vectors_ * kLanes);
    for (std::size_t x = 0; x < taps.first.size(); ++x)
      for (int k = 0; k < vectors_ * kPixels; ++k)
        if (k < taps.most) std::fill_n(&weights_[(x * vectors_ * kPixels + k) * C], C, taps.weights[x * taps.room + k]);
  }
  int slack() const { return vectors_ * kLanes; }

  void run(const Byte* row, Byte* out, int out_bytes) const {
    const std::int32_t* weights = weights_.data();
    for (std::size_t x = 0; x < taps_.first.size(); ++x) {
      const Byte* from = row + C * taps_.first[x];
      Ints sum{};
      for (int v = 0; v < vectors_; ++v, weights += kLanes) sum += widened(from + v * kLanes) * load<Ints>(weights);
      Ints4 few = folded(sum);
      if (C == 1) few = Ints4{few[0] + few[1] + few[2] + few[3]};
      const __m128i words = _mm_packs_epi32((__m128i)((few + kHalf) >> kBits), __m128i{});
      const int pixel = _mm_cvtsi128_si32(_mm_packus_epi16(words, words));
      std::memcpy(out + x * out_bytes, &pixel, C);
    }
  }

 private:
  const Taps& taps_;
  int vectors_;
  std::vector<std::int32_t> weights_;  // of each pixel `vectors_` vectors, a weight for each byte
};

// N vectors of one row of the pass along the columns.
template <int N>
inline void down(const Rows& rows, int first, int count, const std::int32_t* weights, int offset, Byte* out) {
  Ints sums[N];
  for (int n = 0; n < N; ++n) sums[n] = Ints{} + kHalf;
  for (int k = 0; k < count; ++k) {
    const Byte* from = rows[first + k] + offset;
    for (int n = 0; n < N; ++n) sums[n] += widened(from + n * kLanes) * weights[k];
  }
  for (int n = 0; n < N; ++n) store(out + offset + n * kLanes, sums[n] >> kBits);
}

void down_row(const Rows& rows, const Taps& taps, int y, Byte* out, int bytes) {
  const int first = taps.first[y], count = taps.count[y];
  const std::int32_t* weights = &taps.weights[static_cast<std::size_t>(y) * taps.room];
  int offset = 0;
  for (; offset + 4 * kLanes <= bytes; offset += 4 * kLanes) down<4>(rows, first, count, weights, offset, out);
  for (; offset < bytes; offset += kLanes) down<1>(rows, first, count, weights, offset, out);
}

template <int C>
void resize(const Byte* in, int width, int height, Byte* out, int out_bytes, const Taps& across, const Taps& down,
            bool columns_first) {
  const Across<C> pass(across);
  const int kept_width = static_cast<int>(across.first.size()), kept_height = static_cast<int>(down.first.size());
  const int slack = std::max(pass.slack(), kLanes), stride = kept_width * out_bytes;
  const Rows rows(in, 0, height, width * C, slack);
  std::vector<Byte> row(std::max(width * C, stride) + slack), kept(stride + slack);
  if (columns_first) {
    for (int y = 0; y < kept_height; ++y, out += stride) {
      down_row(rows, down, y, row.data(), width * C);
      pass.run(row.data(), kept.data(), out_bytes);
      std::memcpy(out, kept.data(), stride);
    }
    return;
  }
  const int top = down.first[0], bottom = down.first[kept_height - 1] + down.count[kept_height - 1];
  std::vector<Byte> narrow(static_cast<std::size_t>(bottom - top) * stride + slack);
  for (int y = top; y < bottom; ++y)
    pass.run(rows[y], &narrow[static_cast<std::size_t>(y - top) * stride], out_bytes);
  const Rows between(narrow.data(), top, bottom, stride, slack);
  for (int y = 0; y < kept_height; ++y, out += stride) {
    down_row(between, down, y, row.data(), stride);
    std::memcpy(out, row.data(), stride);
  }
}

// The cubic through four equally distant values at `d` in 0-1 between the second and the third.
inline Doubles cubic(Ints4 a, Ints4 b, Ints4 c, Ints4 d, double place) {
  const auto exact = [](Ints4 v) { return (Doubles)_mm256_cvtepi32_pd((__m128i)v); };
  return exact(b) + place * (exact(c - a) + place * (exact(2 * (a - b) + c - d) + place * exact(b - a + d - c)));
}
inline Doubles cubic(Doubles a, Doubles b, Doubles c, Doubles d, double place) {
  return b + place * (-a + c + place * (2 * (a - b) + c - d + place * (-a + b - c + d)));
}

// The image of pixels of 4 bytes within a frame of 2 pixels, in which its edges go on.
std::vector<Byte> framed(const Byte* in, int width, int height) {
  const std::size_t stride = 4 * (width + std::size_t{4});
  std::vector<Byte> out(stride * (height + 4));
  for (int y = 0; y < height + 4; ++y) {
    const Byte* from = in + 4 * static_cast<std::size_t>(width) * std::clamp(y - 2, 0, height - 1);
    Byte* to = &out[stride * y];
    std::memcpy(to + 8, from, 4 * static_cast<std::size_t>(width));
    for (int x = 0; x < 2; ++x) {
      std::memcpy(to + 4 * x, from, 4);
      std::memcpy(to + stride - 4 * (x + 1), from + 4 * (width - 1), 4);
    }
  }
  return out;
}

// The pixel at a place of a framed image, `dx` and `dy` right of and below the pixel at `from`.
inline std::int32_t pixel_at(const Byte* from, std::ptrdiff_t stride, double dx, double dy) {
  const auto pixel = [](const Byte* from) {
    return (Ints4)_mm_cvtepu8_epi32(_mm_cvtsi32_si128(load<std::int32_t>(from)));
  };
  const auto across = [&](const Byte* row) {
    if (dx == 0) return (Doubles)_mm256_cvtepi32_pd((__m128i)pixel(row));
    return cubic(pixel(row - 4), pixel(row), pixel(row + 4), pixel(row + 8), dx);
  };
  Doubles value = across(from);
  if (dy != 0) value = cubic(across(from - stride), value, across(from + stride), across(from + 2 * stride), dy);
  const __m128i words = _mm256_cvttpd_epi32((__m256d)value);  // towards 0; packing cuts off below 0 and above 255
  const __m128i halves = _mm_packs_epi32(words, words);
  return _mm_cvtsi128_si32(_mm_packus_epi16(halves, halves));
}

void transform(const Byte* in, int width, int height, const double* m, std::int32_t fill, Byte* out) {
  const std::vector<Byte> image = framed(in, width, height);
  const std::ptrdiff_t stride = 4 * (width + std::ptrdiff_t{4});
  const double m0 = m[0], m1 = m[1], m2 = m[2], m3 = m[3], m4 = m[4], m5 = m[5];
  for (int row = 0; row < height; ++row)
    for (int column = 0; column < width; ++column, out += 4) {
      double x = m0 * (column + 0.5) + m1 * (row + 0.5) + m2, y = m3 * (column + 0.5) + m4 * (row + 0.5) + m5;
      std::int32_t pixel = fill;
      if (x >= 0 && x < width && y >= 0 && y < height) {
        x -= 0.5;
        y -= 0.5;
        const double left = std::floor(x), above = std::floor(y);
        const Byte* from = image.data() + (static_cast<int>(above) + 2) * stride + (static_cast<int>(left) + 2) * 4;
        pixel = pixel_at(from, stride, x - left, y - above);
      }
      std::memcpy(out, &pixel, sizeof pixel);
    }
}

// 0 once `work` is done, 1 if there is not the memory for it.
template <class W>
int attempt(const W& work) {
  try {
    work();
    return 0;
  } catch (const std::bad_alloc&) {
    return 1;
  }
}

}  // namespace

extern "C" {

// Resizes an image of `width` x `height` pixels, of 1 byte (grey) or of 4 of which the last does not count (RGB), to
// `resized_width` x `resized_height`, and writes the part [top, top + kept_height) x [left, left + kept_width) of it,
// of 1 or 3 bytes a pixel, mirrored if `flip`. `columns_first` says which pass comes first.
int cait_resize(const Byte* in, int channels, int width, int height, Byte* out, int resized_width, int resized_height,
                int left, int top, int kept_width, int kept_height, int flip, int columns_first) {
  return attempt([&] {
    const Taps across = find_taps(width, resized_width, left, kept_width, flip);
    const Taps down = find_taps(height, resized_height, top, kept_height, false);
    if (channels == 1)
      resize<1>(in, width, height, out, 1, across, down, columns_first);
    else
      resize<4>(in, width, height, out, 3, across, down, columns_first);
  });
}

// Moves an image of pixels of 4 bytes: the pixel of `out` at (x, y) is the one of `in` at (m0 x + m1 y + m2,
// m3 x + m4 y + m5), counted from the middle of pixels, or `fill` where that lies outside.
int cait_transform(const Byte* in, int width, int height, const double* m, std::int32_t fill, Byte* out) {
  return attempt([&] { transform(in, width, height, m, fill, out); });
}
}
