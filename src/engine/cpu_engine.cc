#include "engine/cpu_engine.h"

#include <algorithm>
#include <future>
#include <utility>

#include "base/clock.h"
#include "base/log.h"
#include "base/math.h"
#include "base/process.h"
#include "base/thread_start.h"
#include "sample/logprobs.h"
#include "sample/slot_sampler.h"
#include "sample/verify.h"

namespace fathom::engine {

// A running sequence as the rank knows it.
struct CpuEngine::Slot {
  sample::SlotSampler sampler;
  std::shared_ptr<sample::MaskWorkers::Sequence> masks;  // null: every token may come, always
  std::vector<int32_t> block_table;
  int32_t last_token = -1;  // the last one chosen: a decode row's input

  int64_t place_of(int32_t place, int32_t page_size) const {
    return int64_t{block_table[static_cast<size_t>(place / page_size)]} * page_size + place % page_size;
  }
};

// One step's arrays. Kept, so that a warm step allocates nothing for them.
struct CpuEngine::Batch {
  std::vector<int32_t> token_ids, positions;
  std::vector<int64_t> places;
  std::vector<ops::AttentionRow> extend_rows, decode_rows;
  std::vector<int32_t> first;  // [plan row] its first token in the batch
  std::vector<int32_t> count;  // [plan row] tokens
  std::vector<RowMode> modes;  // [plan row] how it attends
  std::vector<int32_t>
      logit_rows;                // of the rows that sample: the last tokens, and all where there are guesses
  std::vector<size_t> sampling;  // their plan rows
  std::vector<int32_t> first_logit;  // beside `sampling`
  std::vector<sample::VerifyRow> verify;
  std::vector<DraftRow> drafts;  // of the decode rows, num_drafts of them; as many as were ever needed
  size_t num_drafts = 0;
  std::vector<int32_t> drafts_of;           // [plan row] its place in `drafts`, or -1
  std::vector<std::vector<int32_t>> held;   // [plan row] the guesses that held
  std::vector<int32_t> depths;              // [guess] of a row
  std::vector<std::vector<int64_t>> tails;  // of the branches' attention rows; as many as were ever needed
  size_t num_tails = 0;
  std::vector<model::KvMove> moves;   // of the last step's guesses, for the next pass
  std::vector<ComputedRow> computed;  // for the drafter
  std::vector<int32_t> chosen;        // of a row

  void clear() {
    token_ids.clear();
    positions.clear();
    places.clear();
    extend_rows.clear();
    decode_rows.clear();
    logit_rows.clear();
    sampling.clear();
    first_logit.clear();
    verify.clear();
    num_tails = 0;
    computed.clear();
  }
};

CpuEngine::CpuEngine(const EngineOptions& options, const std::vector<int32_t>& shares, size_t share)
    : Engine(options, shares[share], cpu_share(options.cpus, shares, share)),
      launch_(std::make_unique<device::Launch>(*pool_)),
      prompt_way_(options.absorb_prompts ? PromptWay(options.config) : PromptWay()),
      masks_(options.config.vocab_size),
      slots_(static_cast<size_t>(options.max_running)),
      batch_(std::make_unique<Batch>()) {}

CpuEngine::~CpuEngine() {
  queue_.close();
  if (thread_.joinable()) thread_.join();
}

std::optional<int> CpuEngine::asked_to_end() const {
  return model_->asked_to_end();
}

Result<std::vector<std::unique_ptr<Engine>>> CpuEngine::start(const EngineOptions& options, int32_t replica) {
  const int64_t start_ns = steady_clock().now_ns();
  const int64_t available = static_cast<int64_t>(device::available_memory());
  const model::Split& split = options.split;
  // Replicas have processors of their own; so have the ranks of each, or the engines where there are none.
  const auto all_shares = thread_shares(options.threads, options.replicas);
  EngineOptions complete = options;
  complete.threads = all_shares[static_cast<size_t>(replica)];
  complete.cpus = cpu_share(available_cpus(), all_shares, static_cast<size_t>(replica));
  const int local = options.local_ranks();
  const auto shares = thread_shares(complete.threads, local);

  std::vector<std::unique_ptr<CpuEngine>> engines;
  for (int group = 0; group < split.dp; ++group) {
    engines.emplace_back(
        new CpuEngine(complete, shares, static_cast<size_t>(group * split.attention_ranks() % local)));
  }
  CpuEngine& first = *engines.front();
  complete.load = complete_load(options);
  FATHOM_ASSIGN(auto models, ModelRanks::build(complete, *first.pool_));
  ModelRanks& ranks = *models.front();

  EngineReport report;
  report.load = ranks.model().report();
  report.load.weight_bytes = ranks.weight_bytes();
  report.load.workspace_bytes = ranks.workspace_bytes();
  report.kv_layout = ranks.model().kv_layout();
  std::string where;
  if (split.world() > 1) where = fmt::format(" on {} ranks", split.world());
  if (options.nodes.nodes > 1)
    where += fmt::format(" of {} nodes, {} of them here", options.nodes.nodes, local);
  report.device = fmt::format("cpu, {} threads{}, {}", std::max(complete.threads, local), where,
                              device::to_string(complete.load.target.isa));
  FATHOM_ASSIGN(report.pool, ranks.make_cache(options, available / (options.replicas - replica)));
  report.load_seconds = seconds_since(start_ns);

  std::vector<std::unique_ptr<Engine>> started;
  for (size_t group = 0; group < engines.size(); ++group) {
    engines[group]->report_ = report;
    engines[group]->take_model(options, std::move(models[group]));
    started.push_back(std::move(engines[group]));
  }
  return started;
}

void CpuEngine::take_model(const EngineOptions& options, std::unique_ptr<ModelRanks> model) {
  model_ = std::move(model);
  limits_.num_pages = static_cast<int32_t>(report_.pool.pages);
  if (options.speculation.source == Speculation::Source::kDraftLayer) {
    drafter_ = make_draft_layer(*model_, options.max_running, options.speculation);
  } else if (options.speculation.source == Speculation::Source::kLookup) {
    drafter_ = make_lookup(options.max_running);
  }
  limits_.prompt_pairs = static_cast<int32_t>(prompt_way_.most_tokens());
  if (options.load.mla && !options.absorb_prompts) {
    limits_.absorbed_tail = kAbsorbedTail;
    limits_.prompt_pairs = limits_.max_step_tokens;  // keys and values of the tokens before are kept
  }
  thread_ = std::thread([this] {
    begin_thread("engine");
    serve();
  });
}

std::future<Result<StepResult>> CpuEngine::step(BatchPlan plan) {
  Work work{std::move(plan), {}};
  auto future = work.promise.get_future();
  FATHOM_CHECK(queue_.push(std::move(work)), "a step after the engine was told to stop");
  return future;
}

void CpuEngine::serve() {
  while (auto work = queue_.pop()) {
    const int64_t start_ns = steady_clock().now_ns();
    const int64_t start_cpu_ns = thread_cpu_ns();
    model_->begin_step();
    auto result = run(work->plan);
    model_->end_step();
    if (trace_->wanted()) {
      trace_->add(StepTrace::Track::kDevice, work->plan.step, static_cast<int64_t>(work->plan.rows.size()),
                  static_cast<int64_t>(batch_->token_ids.size()), static_cast<double>(start_ns) * 1e-3,
                  seconds_since(start_ns) * 1e6, static_cast<double>(thread_cpu_ns() - start_cpu_ns) * 1e-3);
    }
    work->promise.set_value(std::move(result));
  }
}

Result<StepResult> CpuEngine::run(BatchPlan& plan) {
  open_slots(plan);
  draft(plan);
  lay_out(plan);

  model::ForwardBatch forward;
  forward.tokens = static_cast<int64_t>(batch_->token_ids.size());
  forward.token_ids = batch_->token_ids.data();
  forward.positions = batch_->positions.data();
  forward.places = batch_->places.data();
  forward.extend_rows = batch_->extend_rows;
  forward.decode_rows = batch_->decode_rows;
  forward.logit_rows = batch_->logit_rows;
  forward.moves = batch_->moves;
  model::ForwardOutput output;
  model_->forward(*launch_, forward, &output);
  FATHOM_TRY(model_->state());  // nobody chooses among what a broken pass gave

  StepResult result;
  result.step = plan.step;
  result.rows.resize(plan.rows.size());
  for (size_t r = 0; r < plan.rows.size(); ++r) result.rows[r].slot = plan.rows[r].slot;
  choose_tokens(plan, output.logits, &result);
  // After the choice: further logits take the place of the step's.
  for (size_t r = 0; r < plan.rows.size(); ++r) {
    if (plan.rows[r].prompt_logprob_start >= 0)
      report_prompt(plan.rows[r], batch_->first[r], &result.rows[r]);
  }
  if (drafter_) follow(plan, output.hidden, result);
  FATHOM_TRY(model_->state());
  return result;
}

void CpuEngine::open_slots(BatchPlan& plan) {
  for (auto& open : plan.open) {
    Slot& slot = slots_.at(static_cast<size_t>(open.slot));
    slot.sampler = sample::SlotSampler(open.init);
    slot.masks = masks_.open(open.init);
    slot.block_table = std::move(open.pages);
    slot.last_token = open.init.output.empty() ? -1 : open.init.output.back();
    if (drafter_) drafter_->open(open.slot, open.init);
  }
  for (auto& row : plan.rows) {
    auto& table = slots_.at(static_cast<size_t>(row.slot)).block_table;
    table.insert(table.end(), row.new_pages.begin(), row.new_pages.end());
  }
}

// Guesses for the rows that go on from their slot's last token.
void CpuEngine::draft(const BatchPlan& plan) {
  Batch& batch = *batch_;
  batch.num_drafts = 0;
  batch.drafts_of.assign(plan.rows.size(), -1);
  if (!drafter_) return;
  for (size_t r = 0; r < plan.rows.size(); ++r) {
    const BatchRow& row = plan.rows[r];
    if (!row.tokens.empty()) continue;
    const Slot& slot = slots_[static_cast<size_t>(row.slot)];
    batch.drafts_of[r] = static_cast<int32_t>(batch.num_drafts);
    if (batch.num_drafts == batch.drafts.size()) batch.drafts.emplace_back();
    DraftRow& draft = batch.drafts[batch.num_drafts++];
    draft.slot = row.slot;
    draft.start = row.start;
    draft.last_token = slot.last_token;
    draft.drafts = row.drafts;
    draft.block_table = slot.block_table.data();
    draft.sampler = &slot.sampler;
    draft.guesses.clear();
  }
  const auto drafts = std::span(batch.drafts).first(batch.num_drafts);
  drafter_->draft(*launch_, drafts);
  for (DraftRow& row : drafts) {
    const auto& masks = slots_[static_cast<size_t>(row.slot)].masks;
    if (masks != nullptr) masks_.guess(masks, &row.guesses);
  }
}

void CpuEngine::lay_out(const BatchPlan& plan) {
  Batch& batch = *batch_;
  batch.clear();
  batch.first.resize(plan.rows.size());
  batch.count.resize(plan.rows.size());
  batch.modes.clear();
  for (const BatchRow& row : plan.rows) batch.modes.push_back(way_of(row));
  const int32_t page_size = limits_.page_size;
  // The model wants the extend rows first.
  for (const RowMode mode : {RowMode::kExtend, RowMode::kDecode}) {
    auto& attention = mode == RowMode::kExtend ? batch.extend_rows : batch.decode_rows;
    for (size_t r = 0; r < plan.rows.size(); ++r) {
      const BatchRow& row = plan.rows[r];
      if (batch.modes[r] != mode) continue;
      Slot& slot = slots_[static_cast<size_t>(row.slot)];
      const sample::GuessTree no_guesses;
      const sample::GuessTree& guesses =
          batch.drafts_of[r] < 0 ? no_guesses : batch.drafts[static_cast<size_t>(batch.drafts_of[r])].guesses;
      const int32_t count = row.tokens.empty() ? 1 + guesses.size() : static_cast<int32_t>(row.tokens.size());
      const int32_t first = static_cast<int32_t>(batch.token_ids.size());
      batch.first[r] = first;
      batch.count[r] = count;
      FATHOM_CHECK(static_cast<int64_t>(slot.block_table.size()) * page_size >= row.start + count,
                   "slot {}: {} pages of {} tokens for {} + {} tokens", row.slot, slot.block_table.size(),
                   page_size, row.start, count);
      batch.depths.clear();
      for (int32_t i = 0; i < count; ++i) {
        const int32_t token = !row.tokens.empty() ? row.tokens[static_cast<size_t>(i)]
                              : i == 0            ? slot.last_token
                                                  : guesses.tokens[static_cast<size_t>(i) - 1];
        FATHOM_CHECK(token >= 0 && token < limits_.vocab_size, "slot {}: token {} at position {}", row.slot,
                     token, row.start + i);
        // A guess stands one position behind its parent; its entry takes the next place.
        const bool named = !row.tokens.empty() || i == 0;
        const int32_t parent = named ? i - 1 : 1 + guesses.parents[static_cast<size_t>(i) - 1];
        batch.depths.push_back(i == 0 ? 0 : batch.depths[static_cast<size_t>(parent)] + 1);
        batch.token_ids.push_back(token);
        batch.positions.push_back(row.start + batch.depths.back());
        batch.places.push_back(slot.place_of(row.start + i, page_size));
      }
      add_attention(row, slot, guesses, first, count, attention);
      if (row.sample) {
        batch.sampling.push_back(r);
        batch.first_logit.push_back(static_cast<int32_t>(batch.logit_rows.size()));
        for (int32_t i = count - 1 - guesses.size(); i < count; ++i) batch.logit_rows.push_back(first + i);
      }
    }
  }
}

RowMode CpuEngine::way_of(const BatchRow& row) const {
  if (prompt_way_.absorbs(row.start, static_cast<int64_t>(row.tokens.size()))) return RowMode::kDecode;
  return row.mode;
}

// Guesses that follow each other make up one row: the first such run lies where the sequence goes on, and
// each other one sees its branch's entries, wherever they are.
void CpuEngine::add_attention(const BatchRow& row, const Slot& slot, const sample::GuessTree& guesses,
                              int32_t first, int32_t count, std::vector<ops::AttentionRow>& to) {
  Batch& batch = *batch_;
  const auto parent_of = [&](int32_t i) { return 1 + guesses.parents[static_cast<size_t>(i) - 1]; };
  for (int32_t begin = 0, end; begin < count; begin = end) {
    end = begin + 1;
    while (end < count && (!row.tokens.empty() || parent_of(end) == end - 1)) ++end;
    const int32_t depth = batch.depths[static_cast<size_t>(begin)];
    ops::AttentionRow attention{first + begin, end - begin, row.start + depth, slot.block_table.data()};
    attention.goes_on = row.mode == RowMode::kExtend && !row.sample;
    if (begin > 0) {
      if (batch.num_tails == batch.tails.size()) batch.tails.emplace_back();
      std::vector<int64_t>& tail = batch.tails[batch.num_tails++];
      tail.assign(static_cast<size_t>(depth + end - begin), 0);
      for (int32_t i = end - 1, d = depth + end - begin - 1; d >= 0; --d) {
        tail[static_cast<size_t>(d)] = batch.places[static_cast<size_t>(first + i)];
        if (i > 0) i = parent_of(i);
      }
      attention.tail = tail.data();
      attention.tail_start = row.start;
    }
    to.push_back(attention);
  }
}

void CpuEngine::choose_tokens(const BatchPlan& plan, const device::Tensor& logits, StepResult* result) {
  Batch& batch = *batch_;
  batch.moves.clear();
  if (batch.sampling.empty()) return;
  batch.held.resize(std::max(batch.held.size(), plan.rows.size()));
  for (size_t i = 0; i < batch.sampling.size(); ++i) {
    const size_t row = batch.sampling[i];
    sample::VerifyRow verify;
    verify.first = batch.first_logit[i];
    if (batch.drafts_of[row] >= 0)
      verify.guesses = &batch.drafts[static_cast<size_t>(batch.drafts_of[row])].guesses;
    Slot& slot = slots_[static_cast<size_t>(plan.rows[row].slot)];
    verify.slot = &slot.sampler;
    verify.simulated = speculation_.simulated_acceptance;
    verify.thresholds = speculation_.thresholds ? &*speculation_.thresholds : nullptr;
    if (slot.masks != nullptr) {
      verify.mask = &masks_.wait(slot.masks, slot.sampler.generated());
      if (verify.guesses != nullptr) verify.guess_masks = masks_.wait_guessed(slot.masks);
      if (verify.mask->error) result->rows[row].error = verify.mask->error;
    }
    verify.outputs = &result->rows[row].outputs;
    batch.held[row].clear();
    verify.path = &batch.held[row];
    result->rows[row].drafted = verify.guesses != nullptr ? verify.guesses->size() : 0;
    batch.verify.push_back(verify);
  }
  sample::verify_rows(*pool_, logits, batch.verify);
  for (const size_t row : batch.sampling) {
    Slot& slot = slots_[static_cast<size_t>(plan.rows[row].slot)];
    batch.chosen.clear();
    for (const TokenOutput& output : result->rows[row].outputs) batch.chosen.push_back(output.token);
    slot.last_token = batch.chosen.back();
    if (slot.masks != nullptr) masks_.accept(slot.masks, batch.chosen);
    // The last token of the outputs is not computed yet.
    auto& held = batch.held[row];
    held.resize(std::min(held.size(), batch.chosen.size() - 1));
    const int32_t after = plan.rows[row].start + 1;
    for (int32_t i = 0; i < static_cast<int32_t>(held.size()); ++i) {
      const int32_t node = held[static_cast<size_t>(i)];
      if (node == i) continue;
      batch.moves.push_back(
          {slot.place_of(after + node, limits_.page_size), slot.place_of(after + i, limits_.page_size)});
    }
  }
}

// Tells the drafter what the step has made of its rows.
void CpuEngine::follow(const BatchPlan& plan, const device::Tensor& hidden, const StepResult& result) {
  Batch& batch = *batch_;
  for (size_t r = 0; r < plan.rows.size(); ++r) {
    const BatchRow& row = plan.rows[r];
    ComputedRow computed;
    computed.slot = row.slot;
    computed.mode = batch.modes[r];
    computed.start = row.start;
    computed.first = batch.first[r];
    computed.tokens = row.tokens;
    if (row.tokens.empty()) computed.held = batch.held[r];
    computed.block_table = slots_[static_cast<size_t>(row.slot)].block_table.data();
    computed.outputs = result.rows[r].outputs;
    batch.computed.push_back(computed);
  }
  drafter_->follow(*launch_, batch.computed, hidden);
}

void CpuEngine::report_prompt(const BatchRow& row, int32_t first, RowResult* result) {
  const auto& params = slots_[static_cast<size_t>(row.slot)].sampler.logprobs();
  const int32_t count = row.num_tokens();
  const int32_t begin = std::max(row.start + 1, row.prompt_logprob_start);
  const int32_t end = row.start + count + (row.next_prompt_token >= 0 ? 1 : 0);  // exclusive
  const auto piece = static_cast<int32_t>(model_->model().max_logit_rows());
  std::vector<int32_t> wanted;
  for (int32_t from = begin; from < end; from += piece) {
    const int32_t to = std::min(from + piece, end);
    wanted.clear();
    for (int32_t position = from; position < to; ++position)
      wanted.push_back(first + position - 1 - row.start);
    const device::Tensor logits = model_->logits(*launch_, wanted);
    const size_t base = result->prompt_logprobs.size();
    result->prompt_logprobs.resize(base + wanted.size());
    pool_->parallel_for(static_cast<int64_t>(wanted.size()), 1, [&](int64_t i_begin, int64_t i_end, int) {
      for (int64_t i = i_begin; i < i_end; ++i) {
        const int32_t inside = from + static_cast<int32_t>(i) - row.start;
        const int32_t token =
            inside < count ? row.tokens[static_cast<size_t>(inside)] : row.next_prompt_token;
        result->prompt_logprobs[base + static_cast<size_t>(i)] =
            sample::describe_token(logits.row<float>(i), limits_.vocab_size, token, params);
      }
    });
  }
}

}  // namespace fathom::engine
