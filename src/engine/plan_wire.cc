#include "engine/plan_wire.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/message_frame.h"

namespace fathom::engine {
namespace {

constexpr uint8_t kStep = 1, kMasks = 2, kPass = 3;  // a pass is about all groups, framed as the first

// Stands for a mask that node 0 keeps.
class MaskElsewhere final : public TokenMaskSource {
 public:
  std::unique_ptr<TokenMask> begin() const override {
    FATHOM_CHECK(false, "the mask of a request that another node leads");
    return nullptr;
  }
};

void write(ByteWriter& to, const SamplingParams& s) {
  for (const float value :
       {s.temperature, s.top_p, s.min_p, s.repetition_penalty, s.frequency_penalty, s.presence_penalty}) {
    to.real(value);
  }
  to.number(s.top_k);
  to.items(s.logit_bias, [&](const auto& entry) {
    to.number(entry.first);
    to.real(entry.second);
  });
  const ThinkingBudget& t = s.thinking;
  for (const int32_t value : {t.tokens, t.start, t.end, t.line_break, t.begun}) to.number(value);
  to.number(s.max_new_tokens);
  to.number(s.min_new_tokens);
  to.list(s.stop_token_ids);
  to.flag(s.ignore_eos);
  to.wide(s.seed);
}

SamplingParams read_sampling(ByteReader& from) {
  SamplingParams s;
  for (float* value : {&s.temperature, &s.top_p, &s.min_p, &s.repetition_penalty, &s.frequency_penalty,
                       &s.presence_penalty}) {
    *value = from.real();
  }
  s.top_k = from.number();
  s.logit_bias = from.items(8, [](ByteReader& one) {
    const int32_t token = one.number();
    return std::pair(token, one.real());
  });
  ThinkingBudget& t = s.thinking;
  for (int32_t* value : {&t.tokens, &t.start, &t.end, &t.line_break, &t.begun}) *value = from.number();
  s.max_new_tokens = from.number();
  s.min_new_tokens = from.number();
  s.stop_token_ids = from.list<int32_t>();
  s.ignore_eos = from.flag();
  s.seed = from.wide();
  return s;
}

void write(ByteWriter& to, const LogprobParams& p) {
  to.flag(p.output);
  to.number(p.top);
  to.number(p.prompt_start);
  to.list(p.token_ids);
}

LogprobParams read_logprobs(ByteReader& from) {
  LogprobParams p;
  p.output = from.flag();
  p.top = from.number();
  p.prompt_start = from.number();
  p.token_ids = from.list<int32_t>();
  return p;
}

void write(ByteWriter& to, const BatchPlan::Open& open) {
  to.number(open.slot);
  write(to, open.init.sampling);
  write(to, open.init.logprobs);
  to.list(open.init.prompt);
  to.list(open.init.output);
  to.flag(open.init.mask != nullptr);
  to.list(open.pages);
}

BatchPlan::Open read_open(ByteReader& from) {
  BatchPlan::Open open;
  open.slot = from.number();
  open.init.sampling = read_sampling(from);
  open.init.logprobs = read_logprobs(from);
  open.init.prompt = from.list<int32_t>();
  open.init.output = from.list<int32_t>();
  if (from.flag()) open.init.mask = std::make_shared<MaskElsewhere>();
  open.pages = from.list<int32_t>();
  return open;
}

void write(ByteWriter& to, const BatchRow& row) {
  to.number(row.slot);
  to.flag(row.mode == RowMode::kExtend);
  to.number(row.start);
  to.list(row.tokens);
  to.list(row.new_pages);
  to.flag(row.sample);
  to.number(row.drafts);
  to.number(row.prompt_logprob_start);
  to.number(row.next_prompt_token);
}

BatchRow read_row(ByteReader& from) {
  BatchRow row;
  row.slot = from.number();
  row.mode = from.flag() ? RowMode::kExtend : RowMode::kDecode;
  row.start = from.number();
  row.tokens = from.list<int32_t>();
  row.new_pages = from.list<int32_t>();
  row.sample = from.flag();
  row.drafts = from.number();
  row.prompt_logprob_start = from.number();
  row.next_prompt_token = from.number();
  return row;
}

bool fits(const BatchPlan& plan, const ExecutorLimits& limits) {
  const auto slot = [&](int32_t index) { return index >= 0 && index < limits.max_slots; };
  const auto pages = [&](const std::vector<int32_t>& ids) {
    return inside(ids, limits.num_pages) && static_cast<int64_t>(ids.size()) * limits.page_size <
                                                int64_t{limits.max_context} + limits.page_size;
  };
  for (const auto& open : plan.open) {
    const SamplingParams& s = open.init.sampling;
    if (!slot(open.slot) || !pages(open.pages) || !inside(open.init.prompt, limits.vocab_size) ||
        !inside(open.init.output, limits.vocab_size) || !inside(s.stop_token_ids, limits.vocab_size) ||
        !inside(open.init.logprobs.token_ids, limits.vocab_size)) {
      return false;
    }
    for (const auto& [token, bias] : s.logit_bias) {
      if (token < 0 || token >= limits.vocab_size) return false;
    }
  }
  int64_t tokens = 0;
  std::vector<char> seen(static_cast<size_t>(limits.max_slots));
  for (const auto& row : plan.rows) {
    if (!slot(row.slot) || std::exchange(seen[static_cast<size_t>(row.slot)], 1) != 0) return false;
    if (!inside(row.tokens, limits.vocab_size) || !pages(row.new_pages) || row.drafts < 0 ||
        row.drafts > limits.max_drafts || row.start < 0 || row.next_prompt_token < -1 ||
        row.next_prompt_token >= limits.vocab_size || row.prompt_logprob_start < -1) {
      return false;
    }
    if (int64_t{row.start} + row.num_tokens() > limits.max_context) return false;
    tokens += row.num_tokens();
  }
  return !plan.rows.empty() && tokens <= limits.max_step_tokens;
}

StepMessage read_step(ByteReader& from) {
  StepMessage step;
  step.eager = from.flag();
  step.plan.step = from.wide();
  step.plan.open = from.items(8, read_open);
  step.plan.rows = from.items(8, read_row);
  return step;
}

MasksMessage read_masks(ByteReader& from) {
  MasksMessage masks;
  masks.step = from.wide();
  masks.rows = from.items(5, [](ByteReader& one) {
    MaskRow row;
    row.constrains = one.flag();
    row.allowed = one.list<uint64_t>();
    return row;
  });
  return masks;
}

bool fits(const MasksMessage& masks, const ExecutorLimits& limits) {
  return std::all_of(masks.rows.begin(), masks.rows.end(), [&](const MaskRow& row) {
    return row.allowed.size() == (row.constrains ? num_mask_words(limits.vocab_size) : 0);
  });
}

PassMessage read_pass(ByteReader& from) {
  PassMessage message;
  for (int64_t* value : {&message.pass.graph_rows, &message.pass.rows, &message.pass.places})
    *value = static_cast<int64_t>(from.wide());
  message.pass.width = from.number();
  for (const uint8_t idle : from.list<uint8_t>()) message.idle.push_back(idle != 0);
  return message;
}

bool fits(const PassMessage& message, int32_t groups, const ExecutorLimits& limits) {
  const PassBoard::Pass& pass = message.pass;
  return message.idle.size() == static_cast<size_t>(groups) && pass.width >= 1 &&
         pass.width <= 1 + limits.max_drafts && within(pass.graph_rows, limits.max_step_tokens) &&
         within(pass.rows, limits.max_step_tokens) && within(pass.places, limits.max_step_tokens);
}

}  // namespace

std::string encode_step(int32_t group, const BatchPlan& plan, bool eager) {
  return frame_message(kStep, group, [&](ByteWriter& to) {
    to.flag(eager);
    to.wide(plan.step);
    to.items(plan.open, [&](const BatchPlan::Open& open) { write(to, open); });
    to.items(plan.rows, [&](const BatchRow& row) { write(to, row); });
  });
}

std::string encode_masks(int32_t group, uint64_t step, const std::vector<MaskRow>& rows) {
  return frame_message(kMasks, group, [&](ByteWriter& to) {
    to.wide(step);
    to.items(rows, [&](const MaskRow& row) {
      to.flag(row.constrains);
      to.list(row.allowed);
    });
  });
}

std::string encode_pass_begun(const PassBoard::Pass& pass, const std::vector<bool>& idle) {
  return frame_message(kPass, 0, [&](ByteWriter& to) {
    for (const int64_t value : {pass.graph_rows, pass.rows, pass.places})
      to.wide(static_cast<uint64_t>(value));
    to.number(pass.width);
    to.list(std::vector<uint8_t>(idle.begin(), idle.end()));
  });
}

Result<EngineMessage> parse_engine_message(std::string_view bytes, int32_t groups,
                                           const ExecutorLimits& limits) {
  EngineMessage message;
  FATHOM_TRY(read_message(bytes, groups, "node 0", [&](uint8_t kind, int32_t group, ByteReader& from) {
    if (kind == kStep) {
      StepMessage& step = message.step.emplace(read_step(from));
      step.group = group;
      return fits(step.plan, limits);
    }
    if (kind == kMasks) {
      MasksMessage& masks = message.masks.emplace(read_masks(from));
      masks.group = group;
      return fits(masks, limits);
    }
    return kind == kPass && fits(message.pass.emplace(read_pass(from)), groups, limits);
  }));
  return message;
}

}  // namespace fathom::engine
