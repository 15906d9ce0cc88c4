// An executor without a model, for tests of the scheduler.
//
// It keeps a KV store by page. The KV of a token is a hash of the token and of the KV before it, reached
// through the slot's block table, and a chosen token is a function of the last KV, the seed, the number of
// the draw and the outputs so far. So a page mixed up, reused too early or not written, a wrong start, a
// missing replay or a stale slot changes the tokens or trips a CHECK. Plans are CHECKed against the contract
// of core/executor.h.
//
// With max_drafts it guesses, sometimes right: a row may give several tokens, and leaves wrong ones in its
// pages. With draft_layer, a place also has an entry of the KV and the next token, written as core/executor.h
// says; those of a cached prefix must be whole.
//
// A test either calls step(), which runs at once, or submit() and, later and in order, complete().
#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <optional>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "base/random.h"
#include "core/executor.h"

namespace fathom::sched {

class FakeExecutor : public Executor {
 public:
  explicit FakeExecutor(const ExecutorLimits& limits)
      : limits_(limits),
        kv_(static_cast<size_t>(limits.num_pages) * static_cast<size_t>(limits.page_size)),
        slots_(static_cast<size_t>(limits.max_slots)),
        submitted_tables_(static_cast<size_t>(limits.max_slots)) {}

  const ExecutorLimits& limits() const override { return limits_; }

  std::future<Result<StepResult>> step(BatchPlan plan) override {
    submit(std::move(plan));
    std::promise<Result<StepResult>> promise;
    promise.set_value(complete());
    return promise.get_future();
  }

  void submit(BatchPlan plan) {
    check_plan(plan);
    check_pages_in_flight(plan);
    pending_.push_back(std::move(plan));
  }
  size_t pending() const { return pending_.size(); }

  Result<StepResult> complete() {
    FATHOM_CHECK(!pending_.empty(), "no step is pending");
    BatchPlan plan = std::move(pending_.front());
    pending_.pop_front();
    if (fail_at_step_ && plan.step >= *fail_at_step_)
      return error(ErrorCode::kInternal, "the device is lost");
    for (auto& open : plan.open) open_slot(std::move(open));
    StepResult result;
    result.step = plan.step;
    for (const BatchRow& row : plan.rows) result.rows.push_back(run_row(row));
    return result;
  }

  // This step and all later ones fail.
  void fail_at_step(uint64_t step) { fail_at_step_ = step; }

  int64_t prompt_tokens_computed() const { return prompt_tokens_computed_; }
  int64_t max_step_tokens_seen() const { return max_step_tokens_seen_; }
  bool saw_mixed_step() const { return saw_mixed_step_; }

  // The rule, for judges: the tokens a request gets alone.
  static uint64_t next_kv(uint64_t previous, int32_t token) {
    return mix64(previous * 31 + static_cast<uint32_t>(token) + 1);
  }
  static int32_t choose(uint64_t kv, const SamplingParams& sampling, std::span<const int32_t> outputs,
                        int32_t vocab) {
    uint64_t hash = mix64(kv ^ mix64(sampling.seed + outputs.size()));
    for (int32_t output : outputs) hash = mix64(hash + static_cast<uint32_t>(output));
    return static_cast<int32_t>(hash % static_cast<uint64_t>(vocab));
  }
  static float prompt_logprob(uint64_t previous_kv, int32_t token) {
    return -static_cast<float>(mix64(previous_kv + static_cast<uint32_t>(token)) >> 44) * 1e-3F;
  }

 private:
  struct Kv {
    uint64_t hash = 0;
    int32_t position = -1;
    int32_t token = -1;
    // The draft layer's: of the KV above when it was written, and of the token after it.
    uint64_t draft_hash = 0;
    int32_t draft_next = -1;
  };
  struct Slot {
    bool open = false;
    SlotInit init;
    std::vector<int32_t> pages;
    std::vector<int32_t> tokens;  // prompt and outputs
    int32_t length = 0;           // positions written
    int32_t drafted = 0;          // positions with a draft layer's entry
  };

  Slot& slot(int32_t index) {
    FATHOM_CHECK(index >= 0 && index < limits_.max_slots, "slot {}", index);
    return slots_[static_cast<size_t>(index)];
  }
  Kv& kv_at(const Slot& slot, int32_t position) {
    auto page = static_cast<size_t>(position / limits_.page_size);
    FATHOM_CHECK(page < slot.pages.size(), "position {} is beyond {} pages", position, slot.pages.size());
    return kv_[static_cast<size_t>(slot.pages[page]) * static_cast<size_t>(limits_.page_size) +
               static_cast<size_t>(position % limits_.page_size)];
  }

  void check_plan(const BatchPlan& plan) {
    FATHOM_CHECK_EQ(plan.step, next_step_);
    ++next_step_;
    FATHOM_CHECK(!plan.rows.empty(), "a step without rows");
    std::set<int32_t> slots;
    int64_t tokens = 0;
    bool extend = false;
    bool decode = false;
    for (const BatchRow& row : plan.rows) {
      FATHOM_CHECK(slots.insert(row.slot).second, "slot {} has two rows", row.slot);
      FATHOM_CHECK(row.mode == RowMode::kDecode || !row.tokens.empty(), "an extend row without tokens");
      FATHOM_CHECK(row.drafts >= 0 && row.drafts <= (row.tokens.empty() ? limits_.max_drafts : 0),
                   "{} drafts", row.drafts);
      tokens += row.num_tokens();
      (row.mode == RowMode::kExtend ? extend : decode) = true;
      for (int32_t page : row.new_pages) check_page(page);
    }
    std::set<int32_t> opened;
    for (const auto& open : plan.open) {
      FATHOM_CHECK(opened.insert(open.slot).second, "slot {} is opened twice", open.slot);
      for (int32_t page : open.pages) check_page(page);
    }
    FATHOM_CHECK(tokens <= limits_.max_step_tokens, "{} tokens in a step of {}", tokens,
                 limits_.max_step_tokens);
    max_step_tokens_seen_ = std::max(max_step_tokens_seen_, tokens);
    saw_mixed_step_ = saw_mixed_step_ || (extend && decode);
  }
  void check_page(int32_t page) const {
    FATHOM_CHECK(page >= 0 && page < limits_.num_pages, "page {} of {}", page, limits_.num_pages);
  }

  // A slot or a page given anew must not be touched by a step that is out.
  void check_pages_in_flight(const BatchPlan& plan) {
    std::set<int32_t> busy_slots;
    std::set<int32_t> busy_pages;
    for (const BatchPlan& out : pending_) {
      for (const BatchRow& row : out.rows) {
        busy_slots.insert(row.slot);
        for (const BatchRow& other : plan.rows) {
          FATHOM_CHECK(other.slot != row.slot || other.drafts + row.drafts == 0,
                       "slot {}: drafts beside a step in flight", row.slot);
        }
        const auto& table = submitted_tables_[static_cast<size_t>(row.slot)];
        busy_pages.insert(table.begin(), table.end());
      }
    }
    for (const auto& open : plan.open) {
      FATHOM_CHECK(!busy_slots.contains(open.slot), "slot {} is reused while a step is out", open.slot);
      submitted_tables_[static_cast<size_t>(open.slot)] = open.pages;
    }
    for (const BatchRow& row : plan.rows) {
      for (int32_t page : row.new_pages) {
        FATHOM_CHECK(busy_pages.insert(page).second, "page {} is reused while a step is out", page);
        submitted_tables_[static_cast<size_t>(row.slot)].push_back(page);
      }
    }
  }

  void open_slot(BatchPlan::Open open) {
    Slot& opened = slot(open.slot);
    opened.open = true;
    opened.tokens = open.init.prompt;
    opened.tokens.insert(opened.tokens.end(), open.init.output.begin(), open.init.output.end());
    opened.init = std::move(open.init);
    opened.length = static_cast<int32_t>(open.pages.size()) * limits_.page_size;
    opened.pages = std::move(open.pages);
    opened.drafted = opened.length;
  }

  // Entries of the positions before `end`, where the token at `end` is known. The last one of a cached page
  // may have the token that came after it in another sequence.
  void complete_draft_entries(Slot& s, int32_t end) {
    if (!limits_.draft_layer) return;
    for (; s.drafted < end; ++s.drafted) {
      Kv& kv = kv_at(s, s.drafted);
      kv.draft_hash = kv.hash;
      kv.draft_next = s.tokens.at(static_cast<size_t>(s.drafted) + 1);
    }
    for (int32_t position = 0; position < s.drafted; ++position) {
      const Kv& kv = kv_at(s, position);
      FATHOM_CHECK(kv.draft_hash == kv.hash, "slot {}: the draft's entry at {} is of another sequence",
                   &s - slots_.data(), position);
      if ((position + 1) % limits_.page_size == 0) continue;
      FATHOM_CHECK_EQ(kv.draft_next, s.tokens[static_cast<size_t>(position) + 1]);
    }
  }

  // Chooses a token; with drafts, as many as are guessed right and one more. Wrong guesses are left in the
  // KV.
  void run_choice(Slot& s, const BatchRow& row, uint64_t hash, RowResult* result) {
    FATHOM_CHECK_EQ(s.length, static_cast<int32_t>(s.tokens.size()));
    const uint64_t luck = mix64(hash + 17);
    result->drafted = static_cast<int32_t>(luck % static_cast<uint64_t>(row.drafts + 1));
    const auto right = static_cast<int32_t>((luck >> 8) % static_cast<uint64_t>(result->drafted + 1));
    for (int32_t i = 0;; ++i) {
      std::span<const int32_t> outputs = std::span<const int32_t>(s.tokens).subspan(s.init.prompt.size());
      int32_t token = choose(hash, s.init.sampling, outputs, limits_.vocab_size);
      s.tokens.push_back(token);
      TokenOutput output;
      output.token = token;
      if (s.init.logprobs.output) output.logprob = prompt_logprob(hash, token);
      result->outputs.push_back(std::move(output));
      if (i == right) break;
      hash = next_kv(hash, token);
      kv_at(s, s.length) = {hash, s.length, token};
      ++s.length;
    }
    for (int32_t i = right; i < result->drafted; ++i) {
      kv_at(s, s.length + i - right) = {mix64(hash + static_cast<uint64_t>(i)), -2, -2};
    }
  }

  RowResult run_row(const BatchRow& row) {
    Slot& s = slot(row.slot);
    FATHOM_CHECK(s.open, "slot {} is not open", row.slot);
    FATHOM_CHECK_EQ(row.start, s.length);
    s.pages.insert(s.pages.end(), row.new_pages.begin(), row.new_pages.end());
    RowResult result;
    result.slot = row.slot;
    auto prompt_len = static_cast<int32_t>(s.init.prompt.size());
    std::vector<int32_t> tokens = row.tokens;
    if (tokens.empty()) tokens.push_back(s.tokens.back());

    complete_draft_entries(s, row.start);
    // Attention reads everything before; all of it has to be this sequence's.
    uint64_t hash = 0;
    for (int32_t position = 0; position < row.start; ++position) {
      const Kv& kv = kv_at(s, position);
      hash = next_kv(hash, kv.token);
      FATHOM_CHECK_EQ(kv.position, position);
      FATHOM_CHECK(kv.hash == hash, "slot {}: the KV at {} is of another sequence", row.slot, position);
      FATHOM_CHECK_EQ(kv.token, s.tokens[static_cast<size_t>(position)]);
    }
    for (int32_t token : tokens) {
      int32_t position = s.length++;
      const int32_t extend_end = limits_.extend_end(prompt_len);
      FATHOM_CHECK((row.mode == RowMode::kExtend) == (position < extend_end),
                   "position {} of a prompt of {} in a row of the wrong mode", position, prompt_len);
      if (position < prompt_len) ++prompt_tokens_computed_;
      FATHOM_CHECK_EQ(token, s.tokens.at(static_cast<size_t>(position)));
      hash = next_kv(hash, token);
      kv_at(s, position) = {hash, position, token};
      int32_t next = position + 1;
      bool known = next < row.start + row.num_tokens() || row.next_prompt_token >= 0;
      if (row.prompt_logprob_start >= 1 && next >= row.prompt_logprob_start && next < prompt_len && known) {
        int32_t next_token = next < row.start + row.num_tokens()
                                 ? row.tokens[static_cast<size_t>(next - row.start)]
                                 : row.next_prompt_token;
        FATHOM_CHECK_EQ(next_token, s.tokens[static_cast<size_t>(next)]);
        result.prompt_logprobs.push_back({next_token, prompt_logprob(hash, next_token), {}, {}});
      }
    }
    if (!row.tokens.empty()) complete_draft_entries(s, s.length - 1);
    if (row.sample) run_choice(s, row, hash, &result);
    return result;
  }

  ExecutorLimits limits_;
  std::vector<Kv> kv_;
  std::vector<Slot> slots_;
  std::deque<BatchPlan> pending_;
  std::vector<std::vector<int32_t>> submitted_tables_;  // by slot, once all pending steps are done
  uint64_t next_step_ = 0;
  std::optional<uint64_t> fail_at_step_;
  int64_t prompt_tokens_computed_ = 0;
  int64_t max_step_tokens_seen_ = 0;
  bool saw_mixed_step_ = false;
};

}  // namespace fathom::sched
