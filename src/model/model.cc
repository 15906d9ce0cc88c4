#include "model/model.h"

#include <algorithm>
#include <cstring>
#include <numeric>
#include <optional>

#include "base/clock.h"
#include "base/math.h"
#include "model/expert_mover.h"
#include "model/layers.h"
#include "model/memory.h"
#include "model/rank_groups.h"
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
        ops(options.target, options.compute),
        max_tokens(options.max_tokens),
        max_logit_rows(options.max_logit_rows),
        mla(options.mla) {
    max_context = options.max_context > 0 ? options.max_context : config.max_positions;
    layout.layers = cached_layers(config, shard);
    layout.width = mla ? config.latent_width() : config.plain_width(shard.heads.count);
    layout.dtype = options.kv_dtype;
    scale = static_cast<float>(softmax_scale(config));
    if (mla) kept_bytes = options.kept_bytes / options.local_ranks;
  }

  ModelConfig config;
  const Shard shard;
  RankGroups groups;
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
  int64_t kept_bytes = 0;             // 0: nothing is kept
  std::optional<ops::KeptKeys> kept;  // since the first pass, where there is room for a page
  DecodePieces pieces;                // of the forward in progress
  int64_t forward_tokens = 0;         // rows of work.hidden that are valid
  std::vector<int32_t> shard_ids;     // of the tokens to embed, in this rank's part of the table

  void norm(device::Launch& launch, const Tensor& x, const Tensor* add, const float* weight,
            const Tensor& y) const {
    const auto eps = static_cast<float>(config.rms_norm_eps);
    ops.rms_norm(launch, {.x = x, .delta = add, .weight = weight, .eps = eps, .y = y});
  }

  // [t, H] of the tokens' embeddings. A rank knows those of its part of the vocabulary.
  void embed(device::Launch& launch, const int32_t* ids, const Tensor& y) {
    if (shard.split.attention_ranks() == 1)
      return ops.embedding(launch, {.table = weights.embedding, .ids = ids, .y = y});
    const int64_t t = y.dim(0);
    shard_ids.resize(static_cast<size_t>(t));
    const auto inside = [&](int32_t id) { return shard.vocab.contains(id); };
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
    groups.sum(known);
    for (int64_t i = 0; i < t; ++i) std::memcpy(y.row<float>(i), known.row<float>(i), bytes);
  }

  // The draft layer's input: a token, and the state before it.
  void merge_draft(device::Launch& launch, const DraftBatch& draft) {
    const int64_t t = draft.batch.tokens;
    const int64_t width = config.hidden_size;
    FATHOM_CHECK_EQ(static_cast<int64_t>(draft.hidden.size()), t);
    const Tensor pair = work.draft_pair.rows(0, t);
    const Tensor token = pair.columns(0, width);
    const Tensor before = pair.columns(width, 2 * width);
    embed(launch, draft.batch.token_ids, token);
    for (int64_t i = 0; i < t; ++i) {
      std::memcpy(before.row<float>(i), draft.hidden[static_cast<size_t>(i)],
                  static_cast<size_t>(width) * sizeof(float));
    }
    norm(launch, token, nullptr, weights.draft.token_norm, token);
    norm(launch, before, nullptr, weights.draft.hidden_norm, before);
    weights.draft.merge(launch, pair, work.residual.rows(0, t));
  }

  // [R, V] of the whole vocabulary: every rank's columns beside each other.
  void head(device::Launch& launch, const Tensor& x, const Tensor& logits) {
    if (shard.split.attention_ranks() == 1) return weights.head(launch, x, logits);
    const int64_t rows = x.dim(0);
    const Tensor mine = work.shard_logits.rows(0, rows);
    weights.head(launch, x, mine);
    // One row's columns come in their order already.
    auto* parts = rows == 1 ? logits.f32() : work.rank_logits.f32();
    if (!groups.gather_columns(mine, shard.vocabs, parts) || rows == 1) return;
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

  // work.normed -> work.delta, through the experts of all ranks and with the tokens of all groups.
  void experts(const Step& step, MoeWeights& moe) {
    const int64_t t = step.batch.tokens;
    const Tensor normed = work.normed.rows(0, t);
    const Tensor delta = work.delta.rows(0, t);
    const auto tokens = step.batch.group_tokens;
    if (shard.split.dp == 1) {
      moe_block(step, moe, normed, delta);
      groups.sum_stage(delta);
      return;
    }
    const int64_t all = std::accumulate(tokens.begin(), tokens.end(), int64_t{0});
    const Tensor all_normed = work.all_normed.rows(0, all);
    const Tensor all_delta = work.all_delta.rows(0, all);
    groups.gather_tokens(normed, tokens, all_normed);
    moe_block(step, moe, all_normed, all_delta);
    groups.sum_own_tokens(all_delta, tokens, delta);
  }

  // The residual stream through `layers`, the first of which has the cache's layer `first`. What the last one
  // adds is left in work.delta.
  void run_layers(device::Launch& launch, const ForwardBatch& batch, std::span<LayerWeights> layers,
                  int64_t first) {
    const int64_t t = batch.tokens;
    FATHOM_CHECK(t <= max_tokens, "tokens={} max_tokens={}", t, max_tokens);
    FATHOM_CHECK(static_cast<int>(batch.group_tokens.size()) == (shard.split.dp > 1 ? shard.split.dp : 0),
                 "tokens of {} groups, of {}", batch.group_tokens.size(), shard.split.dp);
    const int64_t extend_tokens = batch.decode_rows.empty() ? t : batch.decode_rows.front().first;
    const auto decode = pieces.cut(batch.decode_rows, std::min(max_tokens, Workspace::kDecodeTokens));
    const Step step{launch, config, shard, ops, work, rope, scale, mla, batch, extend_tokens, decode};
    const Tensor stream = work.residual.rows(0, t);
    const Tensor normed = work.normed.rows(0, t);
    const Tensor delta = work.delta.rows(0, t);
    for (size_t i = 0; i < layers.size(); ++i) {
      if (groups.failed()) return;
      LayerWeights& layer = layers[i];
      if (t > 0) {
        norm(launch, stream, i == 0 ? nullptr : &delta, layer.input_norm, normed);
        const auto cached = first + static_cast<int64_t>(i);
        // Not of the draft layer, which is behind the others.
        const bool keeps = kept && cached < shard.layers.count;
        attention_block(step, layer.attention, batch.cache->layer(cached),
                        keeps ? ops::KeptLayer{&*kept, cached} : ops::KeptLayer{});
        groups.sum(delta);
        norm(launch, stream, &delta, layer.attention_norm, normed);
      }
      if (layer.is_moe) {
        experts(step, layer.moe);
      } else if (t > 0) {
        dense_block(step, layer.dense);
        groups.sum(delta);
      }
    }
  }

  // Before the cache's entries are written.
  void begin_kept(const ForwardBatch& batch) {
    if (kept_bytes > 0 && !kept && batch.cache != nullptr) {
      const int64_t page_size = batch.cache->page_size();
      const int64_t width = shard.heads.count * (config.nope_dim + config.value_dim);
      const int64_t page_bytes = shard.layers.count * page_size * width * int64_t{sizeof(float)};
      const int64_t pages = std::min(kept_bytes / page_bytes, 2 * ceil_div(max_context, page_size));
      kept_bytes = 0;
      if (pages == 0) return;
      auto made = ops::KeptKeys::create(shard.layers.count, pages, page_size, width);
      if (made.ok()) kept.emplace(std::move(*made));
    }
    if (!kept) return;
    kept->begin_pass();
    for (int64_t t = 0; t < batch.tokens; ++t) kept->written(batch.places[t]);
    for (const KvMove& move : batch.moves) kept->written(move.to);
  }

  void move_entries(const ForwardBatch& batch) const {
    for (int64_t layer = 0; layer < shard.layers.count && !batch.moves.empty(); ++layer) {
      const ops::KvCache& cache = batch.cache->layer(layer);
      const auto bytes = static_cast<size_t>(cache.width * device::size_of(cache.dtype));
      for (const KvMove& move : batch.moves) {
        std::memcpy(cache.entry(move.to / cache.page_size, move.to % cache.page_size),
                    cache.entry(move.from / cache.page_size, move.from % cache.page_size), bytes);
      }
    }
  }

  // A pass through all stages: the residual stream goes from each to the next.
  void run_stages(device::Launch& launch, const ForwardBatch& batch) {
    const Tensor stream = work.residual.rows(0, batch.tokens);
    const int last = shard.split.pp - 1;
    for (int stage = 0; stage <= last; ++stage) {
      if (stage == shard.place.stage) {
        run_layers(launch, batch, weights.layers, 0);
        if (stage < last) add(launch, work.delta.rows(0, batch.tokens), stream);
      }
      if (stage < last) groups.hand_on(stream, stage);
    }
  }

  // The sum that the next norm would have begun with.
  static void add(device::Launch& launch, const Tensor& delta, const Tensor& stream) {
    launch.pool().parallel_for(stream.dim(0), 16, [&](int64_t begin, int64_t end, int) {
      for (int64_t t = begin; t < end; ++t) {
        float* to = stream.row<float>(t);
        const float* from = delta.row<const float>(t);
        for (int64_t i = 0; i < stream.dim(1); ++i) to[i] += from[i];
      }
    });
  }

  // What the last stage leaves, normalised to `out` [t, H]; on all stages where the model drafts.
  void finish(device::Launch& launch, const float* last_norm, const Tensor& out) {
    const int64_t t = out.dim(0);
    const Tensor delta = work.delta.rows(0, t);
    if (shard.last_stage() && t > 0) norm(launch, work.residual.rows(0, t), &delta, last_norm, out);
    if (config.draft_layers > 0) groups.hand_on(out, shard.split.pp - 1);
  }

  // [R, V] of the head, of rows of `hidden`; on all stages.
  Tensor logits(device::Launch& launch, const Tensor& hidden, std::span<const int32_t> rows) {
    const auto count = static_cast<int64_t>(rows.size());
    FATHOM_CHECK(count <= max_logit_rows, "rows={} max_logit_rows={}", count, max_logit_rows);
    const Tensor result = work.logits.rows(0, count);
    if (count == 0) return result;
    if (shard.last_stage()) {
      const Tensor gathered = work.logit_hidden.rows(0, count);
      for (int64_t i = 0; i < count; ++i) {
        const int32_t row = rows[static_cast<size_t>(i)];
        FATHOM_CHECK(row >= 0 && row < hidden.dim(0), "row={} tokens={}", row, hidden.dim(0));
        std::memcpy(gathered.row<float>(i), hidden.row<float>(row),
                    static_cast<size_t>(config.hidden_size) * sizeof(float));
      }
      head(launch, gathered, result);
    }
    groups.hand_on(result, shard.split.pp - 1);
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

Result<void> check_room(const ModelConfig& config, const LoadOptions& options, const Shard& shard,
                        int64_t context) {
  MemoryOptions wanted;
  wanted.shard = shard;
  wanted.compute = options.compute;
  wanted.mla = options.mla;
  wanted.max_tokens = options.max_tokens;
  wanted.max_logit_rows = options.max_logit_rows;
  wanted.max_context = context;
  const MemoryPlan plan = plan_memory(config, wanted);
  return check_memory(plan.weight_bytes * options.local_ranks, plan.workspace_bytes * options.local_ranks,
                      static_cast<int64_t>(device::available_memory()), "this machine");
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
  FATHOM_ASSIGN(const Shard shard,
                make_shard(config, options.split, options.group != nullptr ? options.group->rank() : 0));
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
  FATHOM_TRY(check_room(config, options, shard, state->max_context));
  // Before anyone takes the memory that another looks at.
  if (options.group != nullptr) FATHOM_TRY(options.group->barrier());
  FATHOM_ASSIGN(state->groups, RankGroups::join(options.group, shard));
  report.check_seconds = seconds_since(check_start);

  const int64_t pack_start = steady_clock().now_ns();
  weights::SupplyContext context{options.target, &state->weight_arena, &pool, counter(options, total),
                                 shard.whole()};
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
  return state_->groups.state();
}

void Model::forward(device::Launch& launch, const ForwardBatch& batch, ForwardOutput* output) {
  State& s = *state_;
  const int64_t t = batch.tokens;
  s.begin_kept(batch);
  s.move_entries(batch);
  if (s.shard.first_stage() && t > 0) s.embed(launch, batch.token_ids, s.work.residual.rows(0, t));
  s.run_stages(launch, batch);
  s.forward_tokens = t;
  output->hidden = s.work.hidden.rows(0, t);
  s.finish(launch, s.weights.norm, output->hidden);
  output->logits = logits(launch, batch.logit_rows);
}

void Model::draft(device::Launch& launch, const DraftBatch& draft, ForwardOutput* output) {
  State& s = *state_;
  const ForwardBatch& batch = draft.batch;
  const int64_t t = batch.tokens;
  FATHOM_CHECK(s.config.draft_layers > 0, "the model was built without its draft layer");
  if (s.shard.last_stage()) {
    if (t > 0) s.merge_draft(launch, draft);
    s.run_layers(launch, batch, {&s.weights.draft.layer, 1}, s.shard.layers.count);
  }
  output->hidden = s.work.draft_hidden.rows(0, t);
  s.finish(launch, s.weights.draft.norm, output->hidden);
  output->logits = s.logits(launch, output->hidden, batch.logit_rows);
}

ExpertBalance Model::balance_experts() {
  State& s = *state_;
  ExpertMover mover(s.groups, s.shard);
  for (LayerWeights& layer : s.weights.layers) {
    if (layer.is_moe) mover.balance(layer.moe);
  }
  if (s.config.draft_layers > 0 && s.shard.last_stage()) mover.balance(s.weights.draft.layer.moe);
  return mover.result();
}

Tensor Model::logits(device::Launch& launch, std::span<const int32_t> rows) {
  return state_->logits(launch, state_->work.hidden.rows(0, state_->forward_tokens), rows);
}

}  // namespace fathom::model
