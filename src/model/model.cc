#include "model/model.h"

#include <algorithm>
#include <cstring>

#include "base/clock.h"
#include "model/layers.h"
#include "model/memory.h"
#include "model/rope.h"
#include "model/weight_check.h"
#include "model/weight_names.h"
#include "model/weights.h"
#include "model/workspace.h"
#include "weights/weight_supply.h"

namespace fathom::model {

using device::Tensor;

struct Model::State {
  State(const ModelConfig& config_in, const LoadOptions& options, const Shard& shard_in)
      : config(config_in),
        shard(shard_in),
        group(shard_in.size > 1 ? options.group : nullptr),
        ops(options.target),
        max_tokens(options.max_tokens),
        max_logit_rows(options.max_logit_rows),
        mla(options.mla) {
    max_context = options.max_context > 0 ? options.max_context : config.max_positions;
    layout.layers = config.num_layers + config.draft_layers;
    layout.width = mla ? config.latent_width() : config.plain_width(shard.heads.count);
    layout.dtype = options.kv_dtype;
    scale = static_cast<float>(softmax_scale(config));
  }

  ModelConfig config;
  const Shard shard;
  dist::Group* const group;  // none where the shard is the whole model
  Ops ops;
  int64_t max_tokens, max_logit_rows;
  int64_t max_context = 0;
  bool mla;
  KvLayout layout;
  float scale = 1.0F;
  device::Arena weight_arena;
  device::Arena work_arena;
  ModelWeights weights;
  Workspace work;
  ops::RopeTable rope;
  LoadReport report;
  std::vector<ops::AttentionRow>
      decode_rows;                 // of the forward in progress, counted from its first decode row
  int64_t forward_tokens = 0;      // rows of work.hidden that are valid
  std::vector<int32_t> shard_ids;  // of the tokens to embed, in this rank's part of the table

  Tensor residual(int64_t tokens) const {
    FATHOM_CHECK(tokens > 0 && tokens <= max_tokens, "tokens={} max_tokens={}", tokens, max_tokens);
    return work.residual.rows(0, tokens);
  }

  void norm(device::Launch& launch, const Tensor& x, const Tensor* add, const float* weight,
            const Tensor& y) const {
    const auto eps = static_cast<float>(config.rms_norm_eps);
    ops.rms_norm(launch, {.x = x, .delta = add, .weight = weight, .eps = eps, .y = y});
  }

  // Rows [t, H] of f32 become their sums over the ranks. A failure is the group's (Model::group_state).
  void sum(const Tensor& rows) const {
    if (group != nullptr) (void)group->all_reduce(rows.data, rows.numel(), rows.dtype);
  }
  bool failed() const { return group != nullptr && !group->state().ok(); }

  // [t, H] of the tokens' embeddings. A rank knows those of its part of the vocabulary.
  void embed(device::Launch& launch, const int32_t* ids, const Tensor& y) {
    if (group == nullptr) return ops.embedding(launch, {.table = weights.embedding, .ids = ids, .y = y});
    const int64_t t = y.dim(0);
    shard_ids.resize(static_cast<size_t>(t));
    const auto inside = [&](int32_t id) { return id >= shard.vocab.first && id < shard.vocab.end(); };
    for (int64_t i = 0; i < t; ++i) {
      shard_ids[static_cast<size_t>(i)] =
          inside(ids[i]) ? ids[i] - static_cast<int32_t>(shard.vocab.first) : 0;
    }
    const Tensor known = work.delta.rows(0, t);  // free before the first layer
    ops.embedding(launch, {.table = weights.embedding, .ids = shard_ids.data(), .y = known});
    const auto bytes = static_cast<size_t>(config.hidden_size) * sizeof(float);
    for (int64_t i = 0; i < t; ++i) {
      if (!inside(ids[i])) std::memset(known.row<float>(i), 0, bytes);
    }
    sum(known);
    for (int64_t i = 0; i < t; ++i) std::memcpy(y.row<float>(i), known.row<float>(i), bytes);
  }

  // [R, V] of the whole vocabulary: every rank's columns beside each other.
  void head(device::Launch& launch, const Tensor& x, const Tensor& logits) const {
    if (group == nullptr) return weights.head(launch, x, logits);
    const int64_t rows = x.dim(0);
    const Tensor mine = work.shard_logits.rows(0, rows);
    weights.head(launch, x, mine);
    std::vector<int64_t> bytes;
    for (const Range& part : shard.vocabs)
      bytes.push_back(rows * part.count * static_cast<int64_t>(sizeof(float)));
    // One row's columns come in their order already.
    auto* parts = rows == 1 ? logits.f32() : work.rank_logits.f32();
    if (!group->all_gather(mine.data, bytes, parts).ok() || rows == 1) return;
    launch.pool().parallel_for(rows, 1, [&](int64_t begin, int64_t end, int) {
      const float* part = parts;
      for (const Range& range : shard.vocabs) {
        for (int64_t i = begin; i < end; ++i) {
          std::memcpy(logits.row<float>(i) + range.first, part + i * range.count,
                      static_cast<size_t>(range.count) * sizeof(float));
        }
        part += rows * range.count;
      }
    });
  }

  // The residual stream through `layers`, the first of which has the cache's layer `first`, and normalised to
  // `out`.
  void run_layers(device::Launch& launch, const ForwardBatch& batch, std::span<const LayerWeights> layers,
                  int64_t first, const float* last_norm, const Tensor& out) {
    const int64_t t = batch.tokens;
    const int64_t extend_tokens = batch.decode_rows.empty() ? t : batch.decode_rows.front().first;
    const auto decode = decode_pieces(batch.decode_rows, std::min(max_tokens, Workspace::kDecodeTokens));
    const Step step{launch, config, shard, ops, work, rope, scale, mla, batch, extend_tokens, decode};
    const Tensor stream = residual(t);
    const Tensor normed = work.normed.rows(0, t);
    const Tensor delta = work.delta.rows(0, t);
    for (size_t i = 0; i < layers.size(); ++i) {
      if (failed()) return;
      const LayerWeights& layer = layers[i];
      norm(launch, stream, i == 0 ? nullptr : &delta, layer.input_norm, normed);
      attention_block(step, layer.attention, batch.cache->layer(first + static_cast<int64_t>(i)));
      sum(delta);
      norm(launch, stream, &delta, layer.attention_norm, normed);
      if (layer.is_moe) {
        moe_block(step, layer.moe);
      } else {
        dense_block(step, layer.dense);
      }
      sum(delta);
    }
    norm(launch, stream, &delta, last_norm, out.rows(0, t));
  }

  // [R, V] of the head, of rows of `hidden`.
  Tensor logits(device::Launch& launch, const Tensor& hidden, std::span<const int32_t> rows) {
    const auto count = static_cast<int64_t>(rows.size());
    FATHOM_CHECK(count <= max_logit_rows, "rows={} max_logit_rows={}", count, max_logit_rows);
    const Tensor result = work.logits.rows(0, count);
    if (count == 0) return result;
    const Tensor gathered = work.logit_hidden.rows(0, count);
    for (int64_t i = 0; i < count; ++i) {
      const int32_t row = rows[static_cast<size_t>(i)];
      FATHOM_CHECK(row >= 0 && row < hidden.dim(0), "row={} tokens={}", row, hidden.dim(0));
      std::memcpy(gathered.row<float>(i), hidden.row<float>(row),
                  static_cast<size_t>(config.hidden_size) * sizeof(float));
    }
    head(launch, gathered, result);
    return result;
  }
};

namespace {

Result<void> check_options(const ModelConfig& config, const LoadOptions& options) {
  if (options.kv_dtype != device::DType::kF32 && options.kv_dtype != device::DType::kBF16) {
    return error(ErrorCode::kUnsupported, "a KV cache of {} is not supported; supported: float32, bfloat16",
                 to_string(options.kv_dtype));
  }
  if (options.max_context > config.max_positions) {
    return error(ErrorCode::kInvalidArgument, "a context of {} tokens is above the model's {}",
                 options.max_context, config.max_positions);
  }
  FATHOM_CHECK(options.max_tokens > 0 && options.max_logit_rows > 0, "max_tokens={} max_logit_rows={}",
               options.max_tokens, options.max_logit_rows);
  return {};
}

// Says so before an hour of loading, rather than being killed at its end.
Result<void> check_memory(const ModelConfig& config, const LoadOptions& options, const Shard& shard,
                          int64_t context) {
  MemoryOptions wanted;
  wanted.shard = shard;
  wanted.compute = options.compute;
  wanted.mla = options.mla;
  wanted.max_tokens = options.max_tokens;
  wanted.max_logit_rows = options.max_logit_rows;
  wanted.max_context = context;
  const MemoryPlan plan = plan_memory(config, wanted);
  const int64_t weights = plan.weight_bytes * options.local_ranks;
  const int64_t workspaces = plan.workspace_bytes * options.local_ranks;
  const auto available = static_cast<int64_t>(device::available_memory());
  if (weights + workspaces <= available) return {};
  return error(
      ErrorCode::kUnavailable,
      "the weights take {:.1f} GB and the workspaces {:.1f} GB, but only {:.1f} GB of memory are free",
      static_cast<double>(weights) * 1e-9, static_cast<double>(workspaces) * 1e-9,
      static_cast<double>(available) * 1e-9);
}

// Counts the bytes that a supply took and tells the caller.
std::function<void(int64_t)> counter(const LoadOptions& options, int64_t total) {
  if (!options.progress) return nullptr;
  return [progress = options.progress, total, done = int64_t{0}](int64_t bytes) mutable {
    done += bytes;
    progress(std::min(done, total), total);
  };
}

void report_linear(LoadReport& report, const device::Target& target, const char* what, const Linear& linear) {
  if (linear.run == nullptr) return;
  const char* name = "";
  ops::choose_linear(target, linear.weight.dtype, linear.weight.compute, &name);
  report.implementations.emplace_back(fmt::format("{} ({})", what, to_string(linear.weight.dtype)), name);
}

void report_implementations(LoadReport& report, const device::Target& target, const ModelWeights& weights) {
  report.implementations.emplace_back("instructions", device::to_string(target.isa));
  report_linear(report, target, "attention linear", weights.layers.front().attention.qkv_a);
  const auto moe = std::find_if(weights.layers.begin(), weights.layers.end(),
                                [](const LayerWeights& layer) { return layer.is_moe; });
  if (moe != weights.layers.end()) {
    report_linear(report, target, "gate linear", moe->moe.gate);
    report_linear(report, target, "shared expert linear", moe->moe.shared.down);
  }
  report_linear(report, target, "head linear", weights.head);
}

}  // namespace

Model::Model(std::unique_ptr<State> state) : state_(std::move(state)) {}
Model::~Model() = default;

Result<std::unique_ptr<Model>> Model::build(const ModelConfig& config, const LoadOptions& options,
                                            ThreadPool& pool) {
  const int ranks = options.group != nullptr ? options.group->size() : 1;
  FATHOM_ASSIGN(const Shard shard,
                make_shard(config, options.group != nullptr ? options.group->rank() : 0, ranks));
  auto model = build_shard(config, options, shard, pool);
  if (!model.ok() && options.group != nullptr) {
    options.group->abort(model.error().with_context(fmt::format("rank {}", shard.rank)));
  }
  return model;
}

Result<std::unique_ptr<Model>> Model::build_shard(const ModelConfig& config, const LoadOptions& options,
                                                  const Shard& shard, ThreadPool& pool) {
  FATHOM_TRY(check_options(config, options));
  auto state = std::make_unique<State>(config, options, shard);
  LoadReport& report = state->report;

  const int64_t check_start = steady_clock().now_ns();
  int64_t total = stored_bytes(config);
  if (options.checkpoint != nullptr) {
    FATHOM_ASSIGN(total, check_weights(config, *options.checkpoint, report));
  }
  total = static_cast<int64_t>(static_cast<double>(total) * static_cast<double>(stored_bytes(config, shard)) /
                               static_cast<double>(stored_bytes(config)));
  FATHOM_TRY(check_memory(config, options, shard, state->max_context));
  // Before anyone takes the memory that another looks at.
  if (options.group != nullptr) FATHOM_TRY(options.group->barrier());
  report.check_seconds = seconds_since(check_start);

  const int64_t pack_start = steady_clock().now_ns();
  weights::SupplyContext context{options.target, &state->weight_arena, &pool, counter(options, total),
                                 shard.size == 1};
  const auto supply =
      options.checkpoint != nullptr
          ? weights::make_checkpoint_supply(*options.checkpoint, std::move(context))
          : weights::make_random_supply(
                options.seed, [&](std::string_view name) { return stored_dtype(config, name); },
                std::move(context));
  FATHOM_ASSIGN(state->weights,
                load_weights(config, {options.target, options.compute, options.mla, shard}, *supply));
  report.weight_bytes = static_cast<int64_t>(state->weight_arena.used());
  report.pack_seconds = seconds_since(pack_start);
  report_implementations(report, options.target, state->weights);

  const WorkspaceShape shape{state->max_tokens, state->max_logit_rows, state->mla, shard};
  FATHOM_ASSIGN(state->work, allocate_workspace(config, shape, state->work_arena));
  report.workspace_bytes = static_cast<int64_t>(state->work_arena.used());
  state->rope = make_rope_table(config, state->max_context, pool);
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
  return state_->max_tokens;
}
int64_t Model::max_logit_rows() const {
  return state_->max_logit_rows;
}
int64_t Model::max_context() const {
  return state_->max_context;
}

Result<void> Model::group_state() const {
  return state_->group != nullptr ? state_->group->state() : Result<void>();
}

void Model::forward(device::Launch& launch, const ForwardBatch& batch, ForwardOutput* output) {
  State& s = *state_;
  const int64_t t = batch.tokens;
  s.embed(launch, batch.token_ids, s.residual(t));
  s.run_layers(launch, batch, s.weights.layers, 0, s.weights.norm, s.work.hidden);
  s.forward_tokens = t;
  output->hidden = s.work.hidden.rows(0, t);
  output->logits = logits(launch, batch.logit_rows);
}

void Model::draft(device::Launch& launch, const DraftBatch& draft, ForwardOutput* output) {
  State& s = *state_;
  const ForwardBatch& batch = draft.batch;
  const int64_t t = batch.tokens;
  const int64_t hidden = s.config.hidden_size;
  FATHOM_CHECK(s.config.draft_layers > 0, "the model was built without its draft layer");
  FATHOM_CHECK_EQ(static_cast<int64_t>(draft.hidden.size()), t);
  const DraftWeights& weights = s.weights.draft;
  const Tensor residual = s.residual(t);
  const Tensor pair = s.work.draft_pair.rows(0, t);
  const Tensor token = pair.columns(0, hidden);
  const Tensor before = pair.columns(hidden, 2 * hidden);
  s.embed(launch, batch.token_ids, token);
  for (int64_t i = 0; i < t; ++i) {
    std::memcpy(before.row<float>(i), draft.hidden[static_cast<size_t>(i)],
                static_cast<size_t>(hidden) * sizeof(float));
  }
  s.norm(launch, token, nullptr, weights.token_norm, token);
  s.norm(launch, before, nullptr, weights.hidden_norm, before);
  weights.merge(launch, pair, residual);
  s.run_layers(launch, batch, {&weights.layer, 1}, s.config.num_layers, weights.norm, s.work.draft_hidden);
  output->hidden = s.work.draft_hidden.rows(0, t);
  output->logits = s.logits(launch, output->hidden, batch.logit_rows);
}

Tensor Model::logits(device::Launch& launch, std::span<const int32_t> rows) {
  return state_->logits(launch, state_->work.hidden.rows(0, state_->forward_tokens), rows);
}

}  // namespace fathom::model
