#include "model/cuda/model.h"

#include <algorithm>
#include <optional>
#include <span>

#include "base/clock.h"
#include "model/cuda/expert_mover.h"
#include "model/cuda/group_positions.h"
#include "model/cuda/layers.h"
#include "model/cuda/rank_groups.h"
#include "model/memory.h"
#include "model/rope.h"
#include "model/weight_check.h"
#include "model/weight_names.h"
#include "ops/embedding/cuda.h"
#include "ops/gather_rows/cuda.h"
#include "ops/mla_decode/cuda.h"
#include "ops/quantize/cuda.h"
#include "ops/rms_norm/cuda.h"

namespace fathom::model::cuda {

using device::DType;
using ops::cuda::Matrix;

Result<KvPool> KvPool::allocate(const KvLayout& layout, int64_t num_pages, int64_t page_size) {
  KvPool pool;
  pool.num_pages_ = num_pages;
  const int64_t layer_bytes = num_pages * page_size * layout.width * device::size_of(layout.dtype);
  FATHOM_ASSIGN(pool.buffer_,
                device::cuda::DeviceBuffer::allocate(static_cast<size_t>(layer_bytes * layout.layers)));
  for (int64_t layer = 0; layer < layout.layers; ++layer) {
    pool.layers_.push_back({static_cast<std::byte*>(pool.buffer_.data()) + layer * layer_bytes, layout.dtype,
                            page_size, layout.width});
  }
  return pool;
}

struct Model::State {
  State(const ModelConfig& config_in, Shard shard_in) : config(config_in), shard(std::move(shard_in)) {}

  ModelConfig config;
  Shard shard;
  LoadOptions options;
  KvLayout layout;
  float scale = 1.0F;
  int64_t max_context = 0;
  int64_t decode_tokens = 0;
  device::cuda::DeviceArena weight_arena;
  device::cuda::DeviceArena work_arena;
  ModelWeights weights;
  Workspace work;
  device::cuda::Branch beside;
  ops::cuda::RopeView rope;
  LoadReport report;
  int64_t forward_tokens = 0;
  RankGroups groups;
  device::cuda::DeviceBuffer staging;  // of experts that move

  bool splits_tokens() const { return shard.split.dp > 1; }
  bool splits_heads() const { return groups.splits_heads(); }

  // The residual stream, where the model is whole. A rank knows the tokens of its part of the vocabulary:
  // rows to be summed, in work.delta.
  void embed(device::cuda::Stream& stream, const GpuBatch& batch) const {
    ops::cuda::embedding(stream,
                         {.table = weights.embedding.data,
                          .table_dtype = weights.embedding.dtype,
                          .first = weights.embedding.first,
                          .rows = weights.embedding.rows,
                          .ids = batch.token_ids,
                          .tokens = batch.view.tokens,
                          .width = config.hidden_size,
                          .y = splits_heads() ? static_cast<float*>(work.delta.data) : work.residual});
  }
  // What the ranks have left in work.delta goes into the residual stream, or is its beginning; y is its norm,
  // and `rounded` the same in FP8, or empty.
  // `places`: of the group of requests that has most tokens, where there are several. `answers`: what
  // expert_combine() is still to leave in work.delta of several ranks, or nothing.
  void add_norm(device::cuda::Stream& stream, int64_t t, int64_t places, bool fresh, const float* weight,
                const Matrix& y, const Workspace::Rounded& rounded,
                const std::optional<ops::cuda::ExpertCombineArgs>& answers) const {
    const auto eps = static_cast<float>(config.rms_norm_eps);
    const Matrix delta = work.delta.first_rows(t);
    if (!splits_heads()) {
      if (t == 0) return;
      ops::cuda::add_rms_norm(stream, {.residual = work.residual,
                                       .delta = fresh ? Matrix() : delta,
                                       .weight = weight,
                                       .eps = eps,
                                       .y = y.first_rows(t),
                                       .rounded = rounded});
      return;
    }
    if (t == 0) return;
    groups.sum(stream, {.rows = delta,
                        .answers = answers,
                        .residual = work.residual,
                        .fresh = fresh,
                        .weight = weight,
                        .eps = eps,
                        .y = y.first_rows(t),
                        .rounded = rounded,
                        .cut = places});
  }
  // The same of what all ranks' experts have left in work.all_delta of this rank's tokens.
  void add_norm_of_all(device::cuda::Stream& stream, int64_t t, int64_t places, const float* weight,
                       const Matrix& y, const Workspace::Rounded& rounded) const {
    groups.sum_own_tokens(stream, {.rows = own_rows(work.all_delta, t, places),
                                   .residual = work.residual,
                                   .weight = weight,
                                   .eps = static_cast<float>(config.rms_norm_eps),
                                   .y = y.first_rows(t),
                                   .rounded = rounded,
                                   .cut = places});
  }
  Matrix own_rows(const Matrix& all, int64_t t, int64_t places) const {
    const int64_t first = shard.place.group * places;
    return all.row_range(first, first + t);
  }
  // work.normed, or this rank's rows of work.all_normed, through the experts of all ranks.
  // The experts' answers, which the next norm is to add up; or none where they are in work.all_delta.
  std::optional<ops::cuda::ExpertCombineArgs> experts(const Step& step, const MoeWeights& moe);
  // Memory that others of the group read and write.
  Result<void> share_workspace();
  // `embedded`: the residual stream is what embed() left.
  void run_layers(device::cuda::Stream& stream, const GpuBatch& batch, std::span<const LayerWeights> layers,
                  int64_t first, bool embedded, const float* last_norm, const Matrix& out);
  void merge_draft(device::cuda::Stream& stream, const GpuBatch& batch, const int32_t* states);
  // Logits [R, V] of rows of `hidden`.
  float* run_head(device::cuda::Stream& stream, const Weight& head, const Matrix& hidden, const int32_t* rows,
                  int64_t count);
};

namespace {

Result<ops::cuda::RopeView> upload_rope(const ModelConfig& config, int64_t positions, ThreadPool& pool,
                                        device::cuda::DeviceArena& arena) {
  const ops::RopeTable table = make_rope_table(config, positions, pool);
  const auto upload = [&](const std::vector<float>& values) -> Result<const float*> {
    FATHOM_ASSIGN(float* data, arena.allocate_array<float>(static_cast<int64_t>(values.size())));
    FATHOM_TRY(device::cuda::check(
        cudaMemcpy(data, values.data(), values.size() * sizeof(float), cudaMemcpyHostToDevice), "upload"));
    return static_cast<const float*>(data);
  };
  ops::cuda::RopeView view;
  view.half = table.half;
  FATHOM_ASSIGN(view.cos, upload(table.cos));
  FATHOM_ASSIGN(view.sin, upload(table.sin));
  return view;
}

WorkspaceShape shape_of(const ModelConfig& config, const Shard& shard, const LoadOptions& options) {
  WorkspaceShape shape;
  shape.shard = shard;
  shape.tokens = options.max_tokens;
  shape.decode_tokens = std::min<int64_t>(options.max_tokens, std::max<int64_t>(options.max_logit_rows, 64));
  shape.logit_rows = options.max_logit_rows;
  shape.pass_keys = Model::kPassPlaces;
  shape.max_context = options.max_context > 0 ? options.max_context : config.max_positions;
  shape.kept_states = options.kept_states;
  shape.mla = options.mla;
  shape.activations = options.compute == ops::Compute::kF32 ? DType::kF32 : DType::kBF16;
  shape.fp8_x = options.fp8_x && config.quantisation == Quantisation::kFp8Block &&
                options.compute == ops::Compute::kBF16;
  return shape;
}

const char* describe(const device::cuda::Gpu& gpu, const ops::cuda::Weight& weight, DType activations) {
  if (activations == DType::kF32 || weight.dtype == DType::kF32) return "simt";
  if (weight.fp8_x) return "wgmma, FP8 activations";
  if (!gpu.hopper()) return "mma";
  return "mma, wgmma";
}

}  // namespace

int64_t working_bytes(const ModelConfig& config, const LoadOptions& options, const device::cuda::Gpu& gpu) {
  const auto shard = make_shard(config, options.split, 0);
  FATHOM_CHECK(shard.ok(), "{}", shard.error().message);  // whoever chose the split has looked
  const WorkspaceShape shape = shape_of(config, *shard, options);
  const int64_t rope = 2 * shape.max_context * config.rope_dim / 2 * static_cast<int64_t>(sizeof(float));
  const int64_t moving = options.moves_experts ? ExpertMover::kStagingBytes : 0;
  return workspace_bytes(config, shape, gpu) + rope + moving;
}

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

Result<std::unique_ptr<Model>> Model::build(const ModelConfig& config, const LoadOptions& options,
                                            device::cuda::Stream& stream, ThreadPool& pool) {
  FATHOM_ASSIGN(Shard shard,
                make_shard(config, options.split, options.group != nullptr ? options.group->rank() : 0));
  if (options.group != nullptr && config.hidden_size % 8 != 0) {
    return error(ErrorCode::kUnsupported, "a hidden size of {} on several GPUs: it must be a multiple of 8",
                 config.hidden_size);
  }
  FATHOM_CHECK(!options.fp8_x || stream.gpu().hopper(), "FP8 activations on {}", stream.gpu().name);
  auto state = std::make_unique<State>(config, std::move(shard));
  FATHOM_ASSIGN(state->beside, device::cuda::Branch::create(stream.gpu()));
  State& s = *state;
  FATHOM_ASSIGN(s.groups, RankGroups::join(options.group, s.shard));
  s.options = options;
  s.options.checkpoint = nullptr;
  s.options.progress = nullptr;
  s.max_context = options.max_context > 0 ? options.max_context : config.max_positions;
  s.decode_tokens = shape_of(config, s.shard, options).decode_tokens;
  s.layout.layers = cached_layers(config, s.shard);
  s.layout.width = options.mla ? config.latent_width() : config.plain_width(s.shard.heads.count);
  s.layout.dtype = options.kv_dtype;
  s.scale = static_cast<float>(softmax_scale(config));

  const int64_t check_start = steady_clock().now_ns();
  int64_t total = stored_bytes(config);
  if (options.checkpoint != nullptr) {
    FATHOM_ASSIGN(total, check_weights(config, *options.checkpoint, s.report));
  }
  total =
      static_cast<int64_t>(static_cast<double>(total) * static_cast<double>(stored_bytes(config, s.shard)) /
                           static_cast<double>(stored_bytes(config)));
  s.report.check_seconds = seconds_since(check_start);

  const int64_t pack_start = steady_clock().now_ns();
  weights::cuda::SupplyContext context;
  context.checkpoint = options.checkpoint;
  context.seed = options.seed;
  context.dtype_of = [&](std::string_view name) { return stored_dtype(config, name); };
  context.stream = &stream;
  context.arena = &s.weight_arena;
  context.pool = &pool;
  context.read_ahead = s.shard.whole();
  if (options.progress) {
    context.taken = [progress = options.progress, total, done = int64_t{0}](int64_t bytes) mutable {
      done += bytes;
      progress(std::min(done, total), total);
    };
  }
  FATHOM_ASSIGN(const auto supply, weights::cuda::DeviceSupply::create(std::move(context)));
  FATHOM_ASSIGN(s.weights, load_weights(config, s.shard,
                                        {.compute = options.compute,
                                         .mla = options.mla,
                                         .fp8_x = shape_of(config, s.shard, options).fp8_x,
                                         .moves_experts = options.moves_experts},
                                        *supply));
  FATHOM_TRY(supply->finish());
  s.report.weight_bytes = static_cast<int64_t>(s.weight_arena.used());
  s.report.pack_seconds = seconds_since(pack_start);

  const WorkspaceShape shape = shape_of(config, s.shard, options);
  FATHOM_ASSIGN(s.work, allocate_workspace(config, shape, stream.gpu(), s.work_arena));
  FATHOM_ASSIGN(s.rope, upload_rope(config, s.max_context, pool, s.work_arena));
  s.report.workspace_bytes = static_cast<int64_t>(s.work_arena.used());
  if (options.moves_experts) {
    FATHOM_ASSIGN(s.staging, device::cuda::DeviceBuffer::allocate(ExpertMover::kStagingBytes));
  }
  FATHOM_TRY(s.share_workspace());
  // Padding tokens leave rows as they are: those must be numbers.
  const auto clear = [&](const Matrix& rows) {
    stream.fill(rows.data, 0, static_cast<size_t>(rows.rows * rows.columns * device::size_of(rows.dtype)));
  };
  if (config.draft_layers > 0) {
    clear(s.work.states);
    clear(s.work.draft_pair);
  }
  if (s.splits_tokens()) clear(s.work.all_normed);
  if (s.work.gate_scratch != nullptr) {
    const auto experts = static_cast<int32_t>(config.num_experts);
    stream.fill(s.work.gate_scratch, 0xff, static_cast<size_t>(ops::cuda::gate_product_workspace(experts)));
  }

  const auto& layer = s.weights.layers.back();
  s.report.implementations.emplace_back(
      fmt::format("attention linear ({})", to_string(layer.attention.qkv_a.dtype)),
      describe(stream.gpu(), layer.attention.qkv_a, shape.activations));
  if (layer.is_moe) {
    s.report.implementations.emplace_back(
        fmt::format("experts ({})", to_string(layer.moe.experts.down.dtype)),
        describe(stream.gpu(), layer.moe.experts.down, shape.activations));
  }
  return std::unique_ptr<Model>(new Model(std::move(state)));
}

const ModelConfig& Model::config() const {
  return state_->config;
}
const KvLayout& Model::kv_layout() const {
  return state_->layout;
}
const LoadReport& Model::report() const {
  return state_->report;
}
int64_t Model::max_tokens() const {
  return state_->options.max_tokens;
}
int64_t Model::max_logit_rows() const {
  return state_->options.max_logit_rows;
}
int64_t Model::max_context() const {
  return state_->max_context;
}

int64_t Model::brief_context(const device::cuda::Gpu& gpu, int64_t tokens) const {
  const State& s = *state_;
  if (!s.options.mla) return 0;
  const int64_t places = ops::cuda::mla_decode_brief_context(gpu, tokens, s.shard.heads.count);
  return places < s.max_context ? places : 0;
}

const float* Model::last_logits() const {
  return state_->work.logits;
}

// The residual stream through `layers`, the first of which has the cache's layer `first`, and normalised to
// `out`.
void Model::State::run_layers(device::cuda::Stream& stream, const GpuBatch& batch,
                              std::span<const LayerWeights> layers, int64_t first, bool embedded,
                              const float* last_norm, const Matrix& out) {
  const int64_t t = batch.view.tokens;
  const int64_t most_places = batch.most_places > 0 ? batch.most_places : max_context;
  const Step step{stream,      config,        shard,       work,  rope,  scale,
                  options.mla, decode_tokens, most_places, batch, beside};
  const int64_t places = batch.group_tokens;
  if (splits_tokens()) {
    FATHOM_CHECK(t <= places && places <= options.max_tokens, "{} tokens of {}, most {}", t, places,
                 options.max_tokens);
    int32_t* mine = work.all_positions + shard.place.group * places;
    group_positions(stream, batch.view.positions, t, places, mine);
    // Numbers of four bytes, whatever they mean.
    groups.gather_tokens(stream, Matrix(mine, DType::kF32, 1, places), 1);
  }
  bool of_all = false;                                // what the next norm adds is in work.all_delta
  std::optional<ops::cuda::ExpertCombineArgs> apart;  // or with the experts still
  const Workspace::Rounded rounded = work.rounded_normed.first_rows(t);
  const auto add = [&](bool fresh, const float* weight, const Matrix& y, const Workspace::Rounded& in_fp8) {
    if (of_all) {
      add_norm_of_all(stream, t, places, weight, y, in_fp8);
    } else if (apart && !splits_heads()) {
      ops::cuda::expert_combine_norm(stream, *apart,
                                     {.residual = work.residual,
                                      .delta = {},
                                      .weight = weight,
                                      .eps = static_cast<float>(config.rms_norm_eps),
                                      .y = y.first_rows(t),
                                      .rounded = in_fp8});
    } else {
      add_norm(stream, t, splits_tokens() ? places : 0, fresh, weight, y, in_fp8, apart);
    }
    apart.reset();
    of_all = false;
  };
  for (size_t i = 0; i < layers.size(); ++i) {
    const LayerWeights& layer = layers[i];
    if (i == 0 && !embedded) {
      if (t > 0) {
        ops::cuda::add_rms_norm(stream, {.residual = work.residual,
                                         .delta = {},
                                         .weight = layer.input_norm,
                                         .eps = static_cast<float>(config.rms_norm_eps),
                                         .y = work.normed.first_rows(t),
                                         .rounded = rounded});
      }
    } else {
      add(i == 0, layer.input_norm, work.normed, rounded);
    }
    if (t > 0) attention_block(step, layer.attention, batch.cache->layer(first + static_cast<int64_t>(i)));
    const bool among_all = layer.is_moe && splits_tokens();
    if (among_all) {  // rounded once all of them are there
      add(false, layer.attention_norm, own_rows(work.all_normed, t, places), {});
    } else {
      add(false, layer.attention_norm, work.normed, rounded);
    }
    if (layer.is_moe) {
      apart = experts(step, layer.moe);
    } else if (t > 0) {
      dense_block(step, stream, layer.dense, {work.normed.first_rows(t), rounded}, work.delta.first_rows(t));
    }
    of_all = among_all;
  }
  add(false, last_norm, out, {});
}

std::optional<ops::cuda::ExpertCombineArgs> Model::State::experts(const Step& step, const MoeWeights& moe) {
  const int64_t t = step.batch.view.tokens;
  if (!splits_tokens()) {
    ops::cuda::ExpertCombineArgs answers = moe_block(
        step, moe, {work.normed.first_rows(t), work.rounded_normed.first_rows(t)}, step.batch.view.positions);
    if (splits_heads()) answers.y = work.delta.first_rows(t);
    return answers;
  }
  const int64_t places = step.batch.group_tokens;
  const int64_t all = shard.split.dp * places;
  groups.gather_tokens(step.stream, own_rows(work.all_normed, t, places), places);
  const Activations x{work.all_normed.first_rows(all), work.rounded_all.first_rows(all)};
  if (x.rounded.values != nullptr) ops::cuda::quantize(step.stream, {.x = x.plain, .y = x.rounded});
  ops::cuda::ExpertCombineArgs answers = moe_block(step, moe, x, work.all_positions);
  answers.y = work.all_delta.first_rows(all);
  ops::cuda::expert_combine(step.stream, answers);
  return {};
}

Result<void> Model::State::share_workspace() {
  if (options.group == nullptr) return {};
  std::vector<Matrix> shared{work.normed, work.states};
  if (splits_heads()) {
    shared.push_back(work.delta);
    shared.emplace_back(work.logits, DType::kF32, options.max_logit_rows, config.vocab_size);
    if (config.draft_layers > 0) shared.push_back(work.draft_pair);
  }
  if (splits_tokens()) {
    shared.insert(shared.end(), {work.all_normed, work.all_delta,
                                 Matrix(work.all_positions, DType::kF32, 1, work.all_normed.rows)});
  }
  if (groups.splits_layers())
    shared.emplace_back(work.residual, DType::kF32, options.max_tokens, config.hidden_size);
  for (const Matrix& m : shared) FATHOM_TRY(groups.share(m));
  return {};
}

float* Model::State::run_head(device::cuda::Stream& stream, const Weight& head, const Matrix& hidden,
                              const int32_t* rows, int64_t count) {
  FATHOM_CHECK(count <= options.max_logit_rows, "rows={} max_logit_rows={}", count, options.max_logit_rows);
  if (count == 0) return work.logits;
  const Matrix gathered = work.logit_hidden.first_rows(count);
  ops::cuda::gather_rows(stream, {.x = hidden, .y = gathered, .ids = rows});
  const Matrix logits(work.logits, DType::kF32, count, config.vocab_size);
  const Matrix mine = logits.slice(shard.vocab.first, shard.vocab.first + head.n);
  if (head.n < shard.vocab.count) {
    // The others are no numbers, and so are not chosen.
    const auto row = static_cast<size_t>(config.vocab_size) * sizeof(float);
    stream.note(cudaMemset2DAsync(work.logits + head.n, row, 0xff,
                                  static_cast<size_t>(config.vocab_size - head.n) * sizeof(float),
                                  static_cast<size_t>(count), stream.handle()),
                "draft logits");
  }
  ops::cuda::linear(stream, {.x = gathered, .y = mine, .weight = &head});
  if (splits_heads()) groups.gather_columns(stream, mine, count * shard.vocabs.front().count);
  return work.logits;
}

float* Model::forward(device::cuda::Stream& stream, const GpuBatch& batch) {
  State& s = *state_;
  const int64_t t = batch.view.tokens;
  FATHOM_CHECK(t > (s.splits_tokens() ? -1 : 0) && t <= s.options.max_tokens, "tokens={} max_tokens={}", t,
               s.options.max_tokens);
  s.forward_tokens = t;
  const Matrix residual(s.work.residual, DType::kF32, t, s.config.hidden_size);
  const bool first = s.shard.first_stage();
  if (first && t > 0) s.embed(stream, batch);
  const auto hand_back = [&] {
    if (s.groups.splits_layers() && batch.hand_back.rows > 0) s.groups.hand_back(stream, batch.hand_back);
  };
  const int64_t places = s.splits_tokens() ? batch.group_tokens : t;
  if (!first) s.groups.take_over(stream, residual, places);
  if (s.shard.last_stage()) hand_back();
  if (!s.shard.last_stage()) {
    // The stream is what goes on: its norm is nobody's.
    s.run_layers(stream, batch, s.weights.layers, 0, first, s.weights.layers.back().input_norm,
                 s.work.normed);
    s.groups.hand_on(stream, residual, places);
    hand_back();
    return s.work.logits;
  }
  s.run_layers(stream, batch, s.weights.layers, 0, first, s.weights.norm, s.work.hidden);
  return logits(stream, batch.logit_rows, batch.logit_count);
}

float* Model::logits(device::cuda::Stream& stream, const int32_t* rows, int64_t count) {
  State& s = *state_;
  if (!s.shard.last_stage()) return s.work.logits;
  return s.run_head(stream, s.weights.head, s.work.hidden.first_rows(s.forward_tokens), rows, count);
}

// The draft layer's input, in the residual stream: the token merged with the hidden state before it.
void Model::State::merge_draft(device::cuda::Stream& stream, const GpuBatch& batch, const int32_t* states) {
  const int64_t t = batch.view.tokens;
  FATHOM_CHECK(config.draft_layers > 0, "the model was built without its draft layer");
  FATHOM_CHECK(t > (splits_tokens() ? -1 : 0) && t <= options.max_tokens, "tokens={} max_tokens={}", t,
               options.max_tokens);
  if (t == 0) return;
  const DraftWeights& draft = weights.draft;
  const int64_t width = config.hidden_size;
  const auto eps = static_cast<float>(config.rms_norm_eps);
  const Matrix pair = work.draft_pair.first_rows(t);
  const Matrix token = pair.slice(0, width);
  const Matrix before = pair.slice(width, 2 * width);
  const Matrix residual(work.residual, DType::kF32, t, width);
  embed(stream, batch);
  if (!splits_heads()) {
    ops::cuda::rms_norm(stream, {.x = residual, .y = token, .weight = draft.token_norm, .eps = eps});
  } else {
    groups.sum(stream,
               {.rows = work.delta.first_rows(t), .weight = draft.token_norm, .eps = eps, .y = token});
  }
  ops::cuda::gather_rows(stream, {.x = work.states, .y = before, .ids = states});
  ops::cuda::rms_norm(stream, {.x = before, .y = before, .weight = draft.hidden_norm, .eps = eps});
  ops::cuda::linear(stream, {.x = pair, .y = residual, .weight = &draft.merge});
}

void Model::draft(device::cuda::Stream& stream, const GpuBatch& batch, const int32_t* states) {
  State& s = *state_;
  if (!s.shard.last_stage()) return;
  const DraftWeights& weights = s.weights.draft;
  s.merge_draft(stream, batch, states);
  s.run_layers(stream, batch, {&weights.layer, 1}, s.shard.layers.count, false, weights.norm,
               s.work.draft_hidden);
  s.run_head(stream, weights.head, s.work.draft_hidden.first_rows(batch.view.tokens), batch.logit_rows,
             batch.logit_count);
}

void Model::draft_entries(device::cuda::Stream& stream, const GpuBatch& batch, const int32_t* states) {
  State& s = *state_;
  if (!s.shard.last_stage()) return;
  const LayerWeights& layer = s.weights.draft.layer;
  const int64_t t = batch.view.tokens;
  s.merge_draft(stream, batch, states);
  ops::cuda::add_rms_norm(stream, {.residual = s.work.residual,
                                   .delta = {},
                                   .weight = layer.input_norm,
                                   .eps = static_cast<float>(s.config.rms_norm_eps),
                                   .y = s.work.normed.first_rows(t),
                                   .rounded = s.work.rounded_normed.first_rows(t)});
  const Step step{stream,        s.config,        s.shard,       s.work, s.rope,  s.scale,
                  s.options.mla, s.decode_tokens, s.max_context, batch,  s.beside};
  write_entries(step, layer.attention, batch.cache->layer(s.shard.layers.count));
}

int32_t Model::kept_state(int64_t i) const {
  FATHOM_CHECK(i >= 0 && i < state_->options.kept_states, "state {} of {}", i, state_->options.kept_states);
  return static_cast<int32_t>(state_->work.hidden.rows + i);
}

int32_t Model::draft_state(int64_t row) const {
  return static_cast<int32_t>(state_->work.hidden.rows + state_->options.kept_states + row);
}

void Model::keep(device::cuda::Stream& stream, const int32_t* from, const int32_t* to, int64_t count) {
  if (!state_->shard.last_stage()) return;
  const Workspace& work = state_->work;
  const int64_t first = work.hidden.rows;
  Matrix kept = work.states.row_range(first, first + state_->options.kept_states);
  kept.rows = count;
  ops::cuda::gather_rows(stream, {.x = work.hidden, .y = kept, .ids = from, .to = to});
}

Result<ExpertBalance> Model::balance_experts(device::cuda::Stream& stream) {
  State& s = *state_;
  FATHOM_CHECK(s.options.moves_experts, "experts that stay where they are");
  ExpertMover mover(s.groups.stage(), s.shard, stream, s.staging);
  for (LayerWeights& layer : s.weights.layers) {
    if (layer.is_moe) FATHOM_TRY(mover.balance(layer.moe));
  }
  if (s.config.draft_layers > 0 && s.shard.last_stage()) FATHOM_TRY(mover.balance(s.weights.draft.layer.moe));
  return mover.result();
}

int64_t Model::num_layers() const {
  return state_->shard.layers.count;
}

bool Model::last_stage() const {
  return state_->shard.last_stage();
}

Result<void> Model::share(const Matrix& rows) {
  return state_->groups.share(rows);
}

void Model::hand_back(device::cuda::Stream& stream, const Matrix& rows) {
  if (state_->groups.splits_layers()) state_->groups.hand_back(stream, rows);
}

}  // namespace fathom::model::cuda
