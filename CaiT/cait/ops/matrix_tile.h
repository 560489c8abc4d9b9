// Products by the matrix unit of x86 processors (AMX), which multiplies nothing but bfloat16.
//
// Eight registers hold 16 rows of 64 bytes each: 0 to 3 sums, 4 and 5 rows of `a`, 6 and 7 panels. One instruction
// multiplies 16 rows by 16 columns over a depth of 32.

// A float as the sum of two bfloat16, in groups of 16: the lower parts, then the upper parts. A group is a row of a
// register. What the sum leaves out is 2^-17 of the float or less.
struct Split {
  std::uint32_t bits;
};
template <>
struct Rows<float> {
  typedef Split Type;
};

constexpr int kUnitRows = 16;  // of a register
constexpr long kUnitBytes = 1024;
template <>
constexpr int kTileRows<Bf16> = 2 * kUnitRows;
template <>
constexpr int kTileRows<Split> = 2 * kUnitRows;
template <>
constexpr int kDepthStep<Bf16> = 32;  // 16 will do

// Gives the registers back, which other libraries use too.
struct GiveBack {
  ~GiveBack() { _tile_release(); }
};
template <>
struct TilesInUse<float> : GiveBack {};
template <>
struct TilesInUse<Bf16> : GiveBack {};

// Makes the registers of `a` so many bytes wide, and those of panels as deep.
inline void use_registers(int bytes) {
  struct {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t row_bytes[16] = {};
    std::uint8_t rows[16] = {};
  } shapes;
  for (int i = 0; i < 8; ++i) {
    shapes.row_bytes[i] = i == 4 || i == 5 ? bytes : 64;
    shapes.rows[i] = i >= 6 ? bytes / 4 : kUnitRows;
  }
  asm volatile("" ::"r"(&shapes) : "memory");  // the compiler does not know that all of it is read
  _tile_loadconfig(&shapes);
}

// The depth that one instruction takes of a product.
inline int depth_of_step(int depth) { return depth % kDepthStep<Bf16> ? kPanel : kDepthStep<Bf16>; }

template <>
inline void use_depth<Bf16>(int depth) {
  use_registers(depth_of_step(depth) * sizeof(Bf16));
}

// The sums of R times 16 rows by V panels: read from `from`, and written to `to`.
template <int R, int V>
inline void load_sums(const float* from, long stride) {
  const long bytes = stride * sizeof(float);
  asm volatile("" ::: "memory");  // the compiler does not know that the loads read memory
  _tile_loadd(0, from, bytes);
  if (V > 1) _tile_loadd(1, from + kPanel, bytes);
  if (R > 1) _tile_loadd(2, from + kUnitRows * stride, bytes);
  if (R > 1 && V > 1) _tile_loadd(3, from + kUnitRows * stride + kPanel, bytes);
}
template <int R, int V>
inline void store_sums(float* to, long stride) {
  const long bytes = stride * sizeof(float);
  _tile_stored(0, to, bytes);
  if (V > 1) _tile_stored(1, to + kPanel, bytes);
  if (R > 1) _tile_stored(2, to + kUnitRows * stride, bytes);
  if (R > 1 && V > 1) _tile_stored(3, to + kUnitRows * stride + kPanel, bytes);
}
template <int R, class A>
inline void load_rows(const A* a, long stride) {
  _tile_loadd(4, a, stride * sizeof(A));
  if (R > 1) _tile_loadd(5, a + kUnitRows * stride, stride * sizeof(A));
}
// Adds the products of the rows and panels that are `next` bytes apart.
template <int R, int V>
inline void multiply(const void* panels, long next) {
  _tile_loadd(6, panels, 64);
  if (V > 1) _tile_loadd(7, static_cast<const char*>(panels) + next, 64);
  _tile_dpbf16ps(0, 4, 6);
  if (V > 1) _tile_dpbf16ps(1, 4, 7);
  if (R > 1) _tile_dpbf16ps(2, 5, 6);
  if (R > 1 && V > 1) _tile_dpbf16ps(3, 5, 7);
}

alignas(64) constexpr float kZeros[kTileColumns] = {};

template <int R, int V>
void matrix_tile(const Factors<Bf16, Bf16>& f, int row, int panel, float* out, long out_stride) {
  const Bf16* a = f.a + row * f.a_stride;
  const Bf16* b = f.b + panel * f.panel_size;
  const int step = depth_of_step(f.depth);
  load_sums<R, V>(f.bias ? f.bias + panel * kPanel : kZeros, 0);  // all rows start with the bias
  for (int k = 0; k < f.depth; k += step) {
    load_rows<R>(a + k, f.a_stride);
    multiply<R, V>(b + k * kPanel, f.panel_size * sizeof(Bf16));
  }
  store_sums<R, V>(out, out_stride);
}

// As vector_tile.h has it; whole registers of `a` are read, and written to `out`.
inline void any_tile(const Factors<Bf16, Bf16>& f, int row, int rows, int panel, int panels, float* out, long stride) {
  const auto high = panels > 1 ? matrix_tile<2, 2> : matrix_tile<2, 1>;
  const auto low = panels > 1 ? matrix_tile<1, 2> : matrix_tile<1, 1>;
  (rows > kUnitRows ? high : low)(f, row, panel, out, stride);
}

inline Floats as_floats(__m256bh halves) { return (Floats)(__builtin_convertvector((Halves)halves, Ints) << 16); }

inline void store(Split* to, Floats v) {
  const __m256bh upper = _mm512_cvtneps_pbh((__m512)v);
  const __m256bh lower = _mm512_cvtneps_pbh((__m512)(v - as_floats(upper)));
  store_as(to, lower);
  store_as(to + kPanel / 2, upper);
}
inline Floats gelu(Floats x, Split) { return gelu(x, 0.f); }

// Weights as registers of panels, for a depth of 16: their upper parts twice, to be multiplied by both parts of rows,
// and their lower parts twice.
constexpr int kParts = 2;

inline void split_panel(const float* panel, int depth, char* to) {
  for (int k = 0; k < depth; k += 2) {
    Floats first = load(panel + k * kPanel), second = load(panel + (k + 1) * kPanel);
    char* at = to + k / kPanel * kParts * kUnitBytes + k % kPanel / 2 * 64;
#pragma GCC unroll 2
    for (int part = 0; part < kParts; ++part, at += kUnitBytes) {
      const Ints pairs = pairs_of(first, second);
      store_as(at, pairs);
      store_as(at + kUnitBytes / 2, pairs);
      first -= (Floats)(pairs << 16);
      second -= (Floats)(pairs & std::int32_t(0xffff0000));
    }
  }
}

constexpr int kSplitDepth = 128;  // of two panels, so that they stay in the first cache while all rows pass

template <>
constexpr std::size_t room_elements<Split>(std::size_t rows) {
  return (rows + kTileRows<Split> - 1) / kTileRows<Split> * kTileRows<Split> * kTileColumns;
}

template <int R, int V>
void split_tile(const Split* a, long a_stride, const char* panels, int depth, const float* from, long from_stride,
                float* to) {
  load_sums<R, V>(from, from_stride);
  for (int k = 0; k < depth; k += kPanel, panels += kParts * kUnitBytes) {
    constexpr long kNext = kSplitDepth / kPanel * kParts * kUnitBytes;
    load_rows<R>(a + k, a_stride);
    for (int part = 0; part < kParts; ++part) multiply<R, V>(panels + part * kUnitBytes, kNext);
  }
  store_sums<R, V>(to, kTileColumns);
}

template <class Finish>
inline void product(const Factors<Split, float>& f, int rows, int panels, Finish finish) {
  constexpr long kPanelBytes = kSplitDepth / kPanel * kParts * kUnitBytes;
  alignas(64) char parts[kTilePanels * kPanelBytes];
  use_registers(64);
  for (int panel = 0; panel < panels; panel += kTilePanels) {
    const int wide = std::min(kTilePanels, panels - panel);
    for (int k = 0; k < f.depth; k += kSplitDepth) {
      const int depth = std::min(kSplitDepth, f.depth - k);
      for (int p = 0; p < wide; ++p) {
        split_panel(f.b + (panel + p) * f.panel_size + k * kPanel, depth, parts + p * kPanelBytes);
      }
      for (int row = 0; row < rows; row += kTileRows<Split>) {
        const int high = std::min(kTileRows<Split>, rows - row);
        float* sums = f.room + row * kTileColumns;
        const float* from = k ? sums : f.bias ? f.bias + panel * kPanel : kZeros;
        const auto two = wide > 1 ? split_tile<2, 2> : split_tile<2, 1>;
        const auto one = wide > 1 ? split_tile<1, 2> : split_tile<1, 1>;
        const auto tile = high > kUnitRows ? two : one;
        tile(f.a + row * f.a_stride + k, f.a_stride, parts, depth, from, k ? kTileColumns : 0, sums);
        if (k + depth == f.depth)
          for (int p = 0; p < wide; ++p) finish(row, high, panel + p, sums + p * kPanel);
      }
    }
  }
}
