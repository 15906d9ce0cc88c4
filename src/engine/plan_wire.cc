#include "engine/plan_wire.h"

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "engine/byte_stream.h"

namespace fathom::engine {
namespace {

constexpr uint8_t kStep = 1, kMasks = 2, kPass = 3;

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
  to.number(static_cast<int32_t>(s.logit_bias.size()));
  for (const auto& [token, bias] : s.logit_bias) {
    to.number(token);
    to.real(bias);
  }
  const ThinkingBudget& t = s.thinking;
  for (const int32_t value : {t.tokens, t.start, t.end, t.line_break, t.begun}) to.number(value);
  to.number(s.max_new_tokens);
  to.number(s.min_new_tokens);
  to.list(s.stop_token_ids);
  to.byte(s.ignore_eos ? 1 : 0);
  to.wide(s.seed);
}

SamplingParams read_sampling(ByteReader& from) {
  SamplingParams s;
  for (float* value : {&s.temperature, &s.top_p, &s.min_p, &s.repetition_penalty, &s.frequency_penalty,
                       &s.presence_penalty}) {
    *value = from.real();
  }
  s.top_k = from.number();
  for (int32_t left = from.count(8); left > 0; --left) {
    const int32_t token = from.number();
    s.logit_bias.emplace_back(token, from.real());
  }
  ThinkingBudget& t = s.thinking;
  for (int32_t* value : {&t.tokens, &t.start, &t.end, &t.line_break, &t.begun}) *value = from.number();
  s.max_new_tokens = from.number();
  s.min_new_tokens = from.number();
  s.stop_token_ids = from.list<int32_t>();
  s.ignore_eos = from.byte() != 0;
  s.seed = from.wide();
  return s;
}

void write(ByteWriter& to, const LogprobParams& p) {
  to.byte(p.output ? 1 : 0);
  to.number(p.top);
  to.number(p.prompt_start);
  to.list(p.token_ids);
}

LogprobParams read_logprobs(ByteReader& from) {
  LogprobParams p;
  p.output = from.byte() != 0;
  p.top = from.number();
  p.prompt_start = from.number();
  p.token_ids = from.list<int32_t>();
  return p;
}

BatchPlan::Open read_open(ByteReader& from) {
  BatchPlan::Open open;
  open.slot = from.number();
  open.init.sampling = read_sampling(from);
  open.init.logprobs = read_logprobs(from);
  open.init.prompt = from.list<int32_t>();
  open.init.output = from.list<int32_t>();
  if (from.byte() != 0) open.init.mask = std::make_shared<MaskElsewhere>();
  open.pages = from.list<int32_t>();
  return open;
}

BatchRow read_row(ByteReader& from) {
  BatchRow row;
  row.slot = from.number();
  row.mode = from.byte() != 0 ? RowMode::kExtend : RowMode::kDecode;
  row.start = from.number();
  row.tokens = from.list<int32_t>();
  row.new_pages = from.list<int32_t>();
  row.sample = from.byte() != 0;
  row.drafts = from.number();
  row.prompt_logprob_start = from.number();
  row.next_prompt_token = from.number();
  return row;
}

bool inside(const std::vector<int32_t>& values, int32_t end) {
  return std::all_of(values.begin(), values.end(), [end](int32_t v) { return v >= 0 && v < end; });
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
  const auto within = [](int64_t value, int64_t most) { return value >= 0 && value <= most; };
  return message.idle.size() == static_cast<size_t>(groups) && pass.width >= 1 &&
         pass.width <= 1 + limits.max_drafts && within(pass.graph_rows, limits.max_step_tokens) &&
         within(pass.rows, limits.max_step_tokens) && within(pass.places, limits.max_step_tokens);
}

}  // namespace

std::string encode_step(int32_t group, const BatchPlan& plan, bool eager) {
  std::string bytes;
  ByteWriter to(bytes);
  to.byte(kStep);
  to.number(group);
  to.byte(eager ? 1 : 0);
  to.wide(plan.step);
  to.number(static_cast<int32_t>(plan.open.size()));
  for (const auto& open : plan.open) {
    to.number(open.slot);
    write(to, open.init.sampling);
    write(to, open.init.logprobs);
    to.list(open.init.prompt);
    to.list(open.init.output);
    to.byte(open.init.mask != nullptr ? 1 : 0);
    to.list(open.pages);
  }
  to.number(static_cast<int32_t>(plan.rows.size()));
  for (const auto& row : plan.rows) {
    to.number(row.slot);
    to.byte(row.mode == RowMode::kExtend ? 1 : 0);
    to.number(row.start);
    to.list(row.tokens);
    to.list(row.new_pages);
    to.byte(row.sample ? 1 : 0);
    to.number(row.drafts);
    to.number(row.prompt_logprob_start);
    to.number(row.next_prompt_token);
  }
  return bytes;
}

std::string encode_masks(int32_t group, uint64_t step, const std::vector<MaskRow>& rows) {
  std::string bytes;
  ByteWriter to(bytes);
  to.byte(kMasks);
  to.number(group);
  to.wide(step);
  to.number(static_cast<int32_t>(rows.size()));
  for (const auto& row : rows) {
    to.byte(row.constrains ? 1 : 0);
    to.list(row.allowed);
  }
  return bytes;
}

std::string encode_pass_begun(const PassBoard::Pass& pass, const std::vector<bool>& idle) {
  std::string bytes;
  ByteWriter to(bytes);
  to.byte(kPass);
  for (const int64_t value : {pass.graph_rows, pass.rows, pass.places}) to.wide(static_cast<uint64_t>(value));
  to.number(pass.width);
  to.list(std::vector<uint8_t>(idle.begin(), idle.end()));
  return bytes;
}

Result<EngineMessage> parse_engine_message(std::string_view bytes, int32_t groups,
                                           const ExecutorLimits& limits) {
  ByteReader from(bytes);
  EngineMessage message;
  const uint8_t kind = from.byte();
  bool sound = false;
  const auto group_of = [&](int32_t group) { return group >= 0 && group < groups; };
  if (kind == kStep) {
    StepMessage& step = message.step.emplace();
    step.group = from.number();
    step.eager = from.byte() != 0;
    step.plan.step = from.wide();
    for (int32_t left = from.count(8); left > 0 && from.ok(); --left)
      step.plan.open.push_back(read_open(from));
    for (int32_t left = from.count(8); left > 0 && from.ok(); --left)
      step.plan.rows.push_back(read_row(from));
    sound = from.done() && group_of(step.group) && fits(step.plan, limits);
  } else if (kind == kMasks) {
    MasksMessage& masks = message.masks.emplace();
    masks.group = from.number();
    masks.step = from.wide();
    sound = group_of(masks.group);
    for (int32_t left = from.count(5); left > 0 && from.ok(); --left) {
      MaskRow row;
      row.constrains = from.byte() != 0;
      row.allowed = from.list<uint64_t>();
      const size_t words = row.constrains ? num_mask_words(limits.vocab_size) : 0;
      sound = sound && row.allowed.size() == words;
      masks.rows.push_back(std::move(row));
    }
    sound = sound && from.done();
  } else if (kind == kPass) {
    sound = fits(message.pass.emplace(read_pass(from)), groups, limits) && from.done();
  }
  if (sound) return message;
  return error(ErrorCode::kInternal, "node 0 sent {} bytes that are no step of this model", bytes.size());
}

}  // namespace fathom::engine
