#include "engine/layout/step_time.h"

#include <algorithm>
#include <numeric>

#include "base/math.h"

namespace fathom::engine {
namespace {

// Routing of a prompt's step is drawn once: so many tokens leave little to chance.
constexpr int64_t kManyTokens = 2048;

// GB/s of the shared experts' weights, beside the routed ones'.
constexpr double kSharedRate = 2656;

// A long step of tensor work takes so much longer than its kernels timed by themselves: the card's power.
constexpr double kSustained = 1.1;

// us that a sum and its norm take longer in a step than one after another alone: ranks wait for the slower
// one (3.1 and 5.4 more than the kernels they replace, two H200, --tp 2, of which a sum alone is 1.5).
constexpr double kWaiting = 2.5;

}  // namespace

Result<StepTimes> StepTimes::make(const model::ModelConfig& config, const GpuKind& gpu,
                                  RoutingOptions routing) {
  if (gpu.read_gbs.value == 0) {
    return error(
        ErrorCode::kUnsupported,
        "--step-time: Fathom's kernels were timed on h100 and h200, not on {}; leave --step-time out",
        gpu.name);
  }
  if (config.quantisation != model::Quantisation::kFp8Block || config.q_lora_rank == 0 ||
      config.num_experts == 0) {
    return error(ErrorCode::kUnsupported,
                 "--step-time: only the kernels of DeepSeek-V3's shapes in FP8 blocks were timed; leave "
                 "--step-time out");
  }
  return StepTimes(config, gpu, routing);
}

StepTime StepTimes::decode(const Layout& layout, int64_t batch, double context) {
  return step(layout, ceil_div<int64_t>(batch, layout.replicas * layout.split.dp), context, false);
}

StepTime StepTimes::prefill(const Layout& layout, int64_t tokens, double length) {
  return step(layout, tokens, length, true);
}

StepTime StepTimes::step(const Layout& layout, int64_t group_rows, double context, bool prompt) {
  const auto rows = static_cast<double>(group_rows);
  const int64_t all_rows = group_rows * layout.split.dp;
  // Stages work one after another; the layers are the same on all of them.
  const model::Split stage{.tp = layout.split.tp, .dp = layout.split.dp, .ep = layout.split.ep};
  const model::Shard shard = model::make_shard(config_, stage, 0).value();  // the largest
  int64_t moe = 0;
  for (int64_t layer = 0; layer < config_.num_layers; ++layer) moe += config_.is_moe(layer) ? 1 : 0;
  const auto dense = static_cast<double>(config_.num_layers - moe);

  StepTime time;
  time.attention = static_cast<double>(config_.num_layers) * attention_layer(shard, rows, context, prompt);
  if (dense > 0) {
    time.dense = dense * (times_.dense_small(rows) +
                          times_.linear_fp8(2 * shard.dense.count, config_.hidden_size, rows) +
                          times_.linear_fp8(config_.hidden_size, shard.dense.count, rows));
  }
  if (moe > 0) time.experts = static_cast<double>(moe) * expert_layer(shard, all_rows);
  if (prompt) {
    time.attention *= kSustained;
    time.dense *= kSustained;
    time.experts *= kSustained;
  }
  const double chosen = prompt ? std::max(1.0, rows / context) : rows;
  time.head = times_.linear_bf16(shard.vocab.count, config_.hidden_size, chosen) + times_.sample(chosen) +
              times_.ends();
  for (const auto& traffic : traffic_of(config_, layout, false)) {
    const double message = traffic.chosen_rows  ? chosen
                           : traffic.all_groups ? static_cast<double>(all_rows)
                                                : rows;
    double us = meeting_us(traffic, message, gpu_);
    // A sum has the norm that follows in it; it is counted as a kernel already.
    if (traffic.meeting == Meeting::kAllReduce) us = std::max(0.0, us - times_.norm(message)) + kWaiting;
    time.meetings += traffic.times * us;
  }
  return time;
}

double StepTimes::attention_layer(const model::Shard& shard, double rows, double context, bool prompt) const {
  const model::ModelConfig& c = config_;
  const int64_t heads = shard.heads.count;
  double us = times_.attention_small(rows);
  us += times_.linear_fp8(c.q_lora_rank + c.latent_width(), c.hidden_size, rows);
  us += times_.linear_fp8(heads * c.query_dim(), c.q_lora_rank, rows);
  us += times_.linear_fp8(c.hidden_size, heads * c.value_dim, rows);
  if (prompt) {
    us += times_.linear_fp8_widened(heads * (c.nope_dim + c.value_dim), c.kv_lora_rank, rows);
    return us + times_.extend_attention(rows, context, heads, c.query_dim(), c.value_dim);
  }
  us += times_.heads_fp8(heads, c.kv_lora_rank, c.nope_dim, rows);
  us += times_.heads_fp8(heads, c.value_dim, c.kv_lora_rank, rows);
  return us + times_.mla_decode(rows, context, heads);
}

double StepTimes::expert_layer(const model::Shard& shard, int64_t rows) {
  const model::ModelConfig& c = config_;
  const auto row_count = static_cast<double>(rows);
  // The rank with most to do, on average over the trials.
  double busiest = 0.0;
  const auto& trials = routed(rows);
  const auto set = static_cast<size_t>(c.num_experts / shard.split.ep);
  for (const auto& trial : trials) {
    double most = 0.0;
    for (size_t first = 0; first < trial.size(); first += set) {
      const auto mine = std::span(trial).subspan(first, std::min(set, trial.size() - first));
      most = std::max(most, times_.experts_fp8(mine, 2 * shard.expert.count, c.hidden_size) +
                                times_.experts_fp8(mine, c.hidden_size, shard.expert.count));
    }
    busiest += most / static_cast<double>(trials.size());
  }
  double shared = 0.0, shared_reading = 0.0;
  if (shard.shared.count > 0) {
    shared = times_.linear_fp8(2 * shard.shared.count, c.hidden_size, row_count) +
             times_.linear_fp8(c.hidden_size, shard.shared.count, row_count);
    // Beside the routed experts: of their time it takes what it reads, and when there is much to do, all.
    const double weights = 3e-3 * static_cast<double>(shard.shared.count * c.hidden_size);
    shared_reading = row_count > 128 ? shared : weights / kSharedRate;
  }
  return times_.moe_small(row_count) + std::max(busiest + shared_reading, shared);
}

const std::vector<std::vector<int32_t>>& StepTimes::routed(int64_t tokens) {
  const auto found = routed_.find(tokens);
  if (found != routed_.end()) return found->second;
  RoutingOptions options = routing_;
  if (tokens > 256) options.trials = std::max(1, options.trials / 4);
  const int64_t drawn = std::min(tokens, kManyTokens);
  if (drawn < tokens) options.trials = 1;
  auto trials = draw_routing(config_, drawn, options);
  for (auto& trial : trials) {
    for (auto& rows : trial) rows = static_cast<int32_t>(rows * tokens / drawn);
  }
  return routed_.emplace(tokens, std::move(trials)).first->second;
}

std::vector<Layout> layouts_of(const model::ModelConfig& config, int gpus, int nodes) {
  std::vector<Layout> layouts;
  const auto add = [&](const Layout& layout) {
    if (!model::make_shard(config, layout.split, 0).ok()) return;
    if (std::find(layouts.begin(), layouts.end(), layout) == layouts.end()) layouts.push_back(layout);
  };
  for (int replicas = 1; replicas <= gpus; replicas *= 2) {
    if (gpus % replicas != 0) continue;
    std::vector<int> stages{1};
    if (nodes > replicas && nodes % replicas == 0) stages.push_back(nodes / replicas);
    for (const int pp : stages) {
      const int tp = gpus / replicas / pp;
      if (tp * pp * replicas != gpus) continue;
      for (int dp = 1; dp <= tp; dp *= 2) {
        if (tp % dp != 0) continue;
        add({{.tp = tp, .dp = dp, .ep = 1, .pp = pp}, replicas, nodes});
        if (config.num_experts > 0) add({{.tp = tp, .dp = dp, .ep = tp, .pp = pp}, replicas, nodes});
      }
    }
  }
  return layouts;
}

}  // namespace fathom::engine
