// Matrix products of rows and packed panels, by the tiles of vector_tile.h and, where there is a matrix unit, of
// matrix_tile.h.
//
// A panel holds 16 columns: float [depth][16], or bfloat16 [depth / 2][16][2], so that one vector load takes a step of
// the depth for as many columns as there are lanes. A tile keeps its sums in registers: CAIT_TILE_ROWS rows by
// CAIT_TILE_VECTORS vectors.

template <class A>
constexpr int kTileRows = CAIT_TILE_ROWS;
constexpr int kTileVectors = CAIT_TILE_VECTORS;
constexpr int kTileColumns = kTileVectors * kLanes;
constexpr int kTilePanels = kTileColumns / kPanel;
static_assert(kTilePanels * kPanel == kTileColumns && CAIT_TILE_ROWS % 2 == 0, "whole panels and pairs of rows");

template <class A>
inline long tiles_of(long rows) {
  return (rows + kTileRows<A> - 1) / kTileRows<A>;
}

// Writes 16 rows of one column of a panel.
inline void store_column(float* panel, int column, const float* values) {
  for (int c = 0; c < kPanel; ++c) panel[c * kPanel + column] = values[c];
}
inline void store_column(Bf16* panel, int column, const float* values) {
  Bf16 rounded[kPanel];
  for (int c = 0; c < kPanel; c += kLanes) store(rounded + c, load(values + c));
  for (int c = 0; c < kPanel; c += 2) std::memcpy(panel + c * kPanel + 2 * column, rounded + c, 2 * sizeof(Bf16));
}

// Writes some columns of the neighbouring rows k and k + 1 of a panel.
inline void store_rows(float* panel, int k, Floats first, Floats second) {
  store(panel + k * kPanel, first);
  store(panel + (k + 1) * kPanel, second);
}
inline void store_rows(Bf16* panel, int k, Floats first, Floats second) {
  store_as(panel + k * kPanel, pairs_of(first, second));
}

template <class A, class B>
struct Factors {
  const A* a;  // [rows, depth], `a_stride` apart
  long a_stride;
  const B* b;             // panels
  long panel_size;        // elements of a panel, which may be deeper than
  int depth;              // the product
  const float* bias;      // [columns], or null
  float* room = nullptr;  // `room_elements`, for weights
};

// What a product with weights needs besides.
template <class A>
constexpr std::size_t room_elements(std::size_t) {
  return 0;
}

// What the depth of a product is best a multiple of.
template <class T>
constexpr int kDepthStep = 4 / sizeof(T);

// To be called before tiles of one depth.
template <class T>
inline void use_depth(int) {}

// Held by a kernel of T while it uses tiles.
template <class T>
struct TilesInUse {
  TilesInUse() {}  // so that compilers do not take it for forgotten
};

// All rows and panels; `finish(row, rows, panel, values)` is given each panel of each tile, `kTileColumns` apart. Up to
// `kTileRows` rows of `a` may be read.
template <class T, class Finish>
inline void product(const Factors<T, T>& f, int rows, int panels, Finish finish) {
  alignas(64) float values[kTileRows<T> * kTileColumns];
  use_depth<T>(f.depth);
  for (int panel = 0; panel < panels; panel += kTilePanels) {
    const int wide = std::min(kTilePanels, panels - panel);
    for (int row = 0; row < rows; row += kTileRows<T>) {
      const int high = std::min(kTileRows<T>, rows - row);
      any_tile(f, row, high, panel, wide, values, kTileColumns);
      for (int p = 0; p < wide; ++p) finish(row, high, panel + p, values + p * kPanel);
    }
  }
}
