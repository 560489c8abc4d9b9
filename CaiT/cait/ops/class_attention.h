// The class-attention blocks (paper section 3).

// Where one class-attention block's weights lie. Panels: q [columns / 16][width][16]; per head the transposed keys
// [width / 16][head_width][16]; v, proj, fc1 and fc2 as q. Vectors: their biases.
//
// With a single query, q (x K)^T = (q K^T) x^T and p (x V) = (p x) V: no keys and values of all patches are needed.
// The bias of the keys adds the same to a whole row before the softmax, and is dropped.
template <class T>
struct ClassWeights {
  const T *q, *keys, *v, *proj, *fc1, *fc2;
  const float *q_bias, *v_bias, *proj_bias, *fc1_bias, *fc2_bias;

  ClassWeights(const Shape& s, int block, const void* panels, const float* vectors) {
    const std::size_t attention = static_cast<std::size_t>(s.width()) * s.attention_width();
    const std::size_t mlp = static_cast<std::size_t>(s.width()) * s.hidden_width();
    q = static_cast<const T*>(panels) + block * s.panel_elements();
    keys = q + attention;
    v = keys + attention;
    proj = v + attention;
    fc1 = proj + attention;
    fc2 = fc1 + mlp;
    q_bias = vectors + block * s.class_vector_elements();
    v_bias = q_bias + s.attention_width();
    proj_bias = v_bias + s.attention_width();
    fc1_bias = proj_bias + s.width();
    fc2_bias = fc1_bias + s.hidden_width();
  }
};

// What one thread works in, for `images` images.
template <class T>
struct ClassSpace {
  float* patches;  // [images, tokens, width], normalised
  // Of these, products read whole tiles.
  float* token;    // [images, width], the residual
  float* centre;   // [images, width], the token normalised
  Row<T>* rows;       // [images, width], the same for a product
  Row<T>* attention;  // [images, attention_width]
  Row<T>* hidden;     // [images, hidden_width]
  float* views;    // [images, heads, width]: the queries as the patches see them
  Row<T>* sums;       // [images, heads, width]: patches, weighted by attention
  float* logits;   // [heads, 1 + tokens, padded]
  float* room;     // for all products

  ClassSpace(const Shape& s, std::size_t images, Pieces* pieces) {
    patches = pieces->take<float>(images * s.tokens * s.width());
    images = tiles_of<Row<T>>(images) * kTileRows<Row<T>>;
    token = pieces->take<float>(images * s.width());
    centre = pieces->take<float>(images * s.width());
    rows = pieces->take<Row<T>>(images * s.width());
    attention = pieces->take<Row<T>>(images * s.attention_width());
    hidden = pieces->take<Row<T>>(images * s.hidden_width());
    views = pieces->take<float>(images * s.heads * s.width());
    sums = pieces->take<Row<T>>(images * s.heads * s.width());
    logits = pieces->take<float>(static_cast<std::size_t>(s.heads) * padded(1 + s.tokens));
    room = pieces->take<float>(room_elements<Row<T>>(images));
  }
};

// Attention of one image's class token. Reads `views`, writes `sums` and the attention [heads, 1 + tokens].
template <class T>
void attend_to_patches(const Shape& s, const float* patches, const float* centre, const float* views, Row<T>* sums,
                       float* logits, float* attention) {
  const int width = s.width(), tokens = 1 + s.tokens, stride = padded(tokens);
  const auto key = [&](int j) { return j ? patches + static_cast<long>(j - 1) * width : centre; };
  for (int j = 0; j < tokens; ++j) {
    for (int h = 0; h < s.heads; ++h) {
      Floats total{};
      for (int c = 0; c < width; c += kLanes) total += load(key(j) + c) * load(views + h * width + c);
      logits[h * stride + j] = sum(total);
    }
  }
  for (int h = 0; h < s.heads; ++h) {
    float* row = logits + h * stride;
    std::fill(row + tokens, row + stride, -3e38f);
    Floats most = all(-3e38f), total{};
    for (int j = 0; j < stride; j += kLanes) most = larger(most, load(row + j));
    const float shift = largest(most);
    for (int j = 0; j < stride; j += kLanes) {
      const Floats e = exponential(load(row + j) - shift);
      total += e;
      store(row + j, e);
    }
    const float share = 1.f / sum(total);
    for (int j = 0; j < tokens; ++j) attention[h * tokens + j] = row[j] * share;
  }
  for (int h = 0; h < s.heads; ++h) {
    for (int c = 0; c < width; c += kLanes) {
      Floats total{};
      for (int j = 0; j < tokens; ++j) total += load(key(j) + c) * attention[h * tokens + j];
      store(sums + h * width + c, total);
    }
  }
}

// The most images that one of a team's threads has.
inline int class_share(const ClassCall& call, int threads) { return (call.images + threads - 1) / threads; }

// Bytes of one thread's space.
template <class T>
std::size_t class_space(const ClassCall& call, int threads) {
  Pieces pieces{nullptr};
  (void)ClassSpace<T>(call.shape, class_share(call, threads), &pieces);
  return pieces.used;
}

template <class T>
std::size_t class_scratch(const ClassCall& call, int threads) {
  // There may be fewer threads than were asked for, which need more: they have more images, and whole tiles of them.
  std::size_t most = 0;
  for (int team = 1; team <= threads; ++team) {
    most = std::max(most, std::min(team, call.images) * class_space<T>(call, team));
  }
  return most;
}

// One thread's share: some of the images, all together, for the products read each weight once.
template <class T>
void class_blocks(const ClassCall& call, const Team& team) {
  const Shape& s = call.shape;
  const int first = static_cast<long>(call.images) * team.thread / team.threads;
  const int images = static_cast<long>(call.images) * (team.thread + 1) / team.threads - first;
  if (!images) return;
  const int width = s.width(), head_width = s.head_width(), attention = s.attention_width(), hidden = s.hidden_width();
  const int before = std::min(team.thread, first);  // threads that have images
  Pieces pieces{team.scratch + before * class_space<T>(call, team.threads)};
  const ClassSpace<T> space(s, class_share(call, team.threads), &pieces);
  const long image = static_cast<long>(s.tokens) * width;

  for (int i = 0; i < images; ++i) {
    copy_rows(call.input + static_cast<long>(first + i) * s.tokens * s.dim, s.dim, space.patches + i * image, width,
              s.tokens);
    for (int row = 0; row < s.tokens; ++row) {
      float* patch = space.patches + i * image + static_cast<long>(row) * width;
      normalise(patch, s.dim, width, patch);
    }
    copy_rows(call.token, s.dim, space.token + i * width, width, 1);
  }
  const TilesInUse<T> tiles_in_use;
  const auto multiply = [&](const Row<T>* a, int stride, const T* panels, int depth, int columns, const float* bias,
                            auto finish) {
    const Factors<Row<T>, T> factors{a, stride, panels, static_cast<long>(depth) * kPanel, depth, bias, space.room};
    product(factors, images, columns / kPanel, finish);
  };
  for (int block = 0; block < s.depth; ++block) {
    const ClassWeights<T> w(s, block, call.panels, call.vectors);
    for (int i = 0; i < images; ++i) {
      normalise(space.token + i * width, s.dim, width, space.centre + i * width);
      normalise(space.token + i * width, s.dim, width, space.rows + i * width);
    }
    multiply(space.rows, width, w.q, width, attention, w.q_bias, CopyTo<Row<T>>{space.attention, attention});
    for (int h = 0; h < s.heads; ++h) {
      multiply(space.attention + h * head_width, attention, w.keys + static_cast<long>(h) * head_width * width,
               head_width, width, nullptr, CopyTo<float>{space.views + h * width, s.heads * width});
    }
    for (int i = 0; i < images; ++i) {
      attend_to_patches<T>(s, space.patches + i * image, space.centre + i * width, space.views + i * s.heads * width,
                        space.sums + i * s.heads * width, space.logits,
                        call.attention + (static_cast<long>(first + i) * s.depth + block) * s.heads * (1 + s.tokens));
    }
    for (int h = 0; h < s.heads; ++h) {
      multiply(space.sums + h * width, s.heads * width, w.v + static_cast<long>(h) * head_width * width, width,
               head_width, w.v_bias + h * head_width, CopyTo<Row<T>>{space.attention + h * head_width, attention});
    }
    multiply(space.attention, attention, w.proj, attention, width, w.proj_bias, AddTo{space.token, width});
    for (int i = 0; i < images; ++i) normalise(space.token + i * width, s.dim, width, space.rows + i * width);
    multiply(space.rows, width, w.fc1, width, hidden, w.fc1_bias, GeluTo<Row<T>>{space.hidden, hidden});
    multiply(space.hidden, hidden, w.fc2, hidden, width, w.fc2_bias, AddTo{space.token, width});
  }
  copy_rows(space.token, width, call.output + static_cast<long>(first) * s.dim, s.dim, images);
}
