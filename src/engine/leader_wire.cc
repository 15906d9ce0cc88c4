#include "engine/leader_wire.h"

#include <algorithm>
#include <bit>

#include "engine/byte_stream.h"

namespace fathom::engine {
namespace {

constexpr uint8_t kWant = 1, kQuestion = 2, kAnswer = 3;

void write(ByteWriter& to, const std::vector<TokenLogprob>& values) {
  to.number(static_cast<int32_t>(values.size()));
  for (const TokenLogprob& value : values) {
    to.number(value.token);
    to.real(value.logprob);
  }
}

std::vector<TokenLogprob> read_logprobs(ByteReader& from) {
  std::vector<TokenLogprob> values;
  for (int32_t left = from.count(8); left > 0; --left) {
    const int32_t token = from.number();
    values.push_back({token, from.real()});
  }
  return values;
}

void write(ByteWriter& to, const std::vector<TokenOutput>& outputs) {
  to.number(static_cast<int32_t>(outputs.size()));
  for (const TokenOutput& output : outputs) {
    to.number(output.token);
    to.real(output.logprob);
    write(to, output.top);
    write(to, output.requested);
  }
}

std::vector<TokenOutput> read_outputs(ByteReader& from) {
  std::vector<TokenOutput> outputs;
  for (int32_t left = from.count(16); left > 0 && from.ok(); --left) {
    TokenOutput& output = outputs.emplace_back();
    output.token = from.number();
    output.logprob = from.real();
    output.top = read_logprobs(from);
    output.requested = read_logprobs(from);
  }
  return outputs;
}

PassBoard::Want read_want(ByteReader& from) {
  PassBoard::Want want;
  for (int64_t* value : {&want.named, &want.going_on, &want.sampling, &want.graph_rows})
    *value = from.number();
  want.width = from.number();
  return want;
}

MaskQuestion read_question(ByteReader& from) {
  MaskQuestion question;
  question.step = from.wide();
  question.shape.rows = from.number();
  question.shape.width = from.number();
  question.shape.by_row = from.byte() != 0;
  question.choices = from.number();
  for (int32_t left = from.count(12); left > 0; --left) {
    MaskQuestion::Choice& choice = question.masked.emplace_back();
    for (int32_t* value : {&choice.row, &choice.slot, &choice.chosen}) *value = from.number();
  }
  for (int32_t left = from.count(12); left > 0 && from.ok(); --left) {
    GuessedRow& row = question.guessed.emplace_back();
    row.row = from.number();
    row.guesses.tokens = from.list<int32_t>();
    row.guesses.parents = from.list<int32_t>();
  }
  return question;
}

StepResult read_result(ByteReader& from) {
  StepResult result;
  result.step = from.wide();
  for (int32_t left = from.count(16); left > 0 && from.ok(); --left) {
    RowResult& row = result.rows.emplace_back();
    row.slot = from.number();
    row.drafted = from.number();
    row.outputs = read_outputs(from);
    row.prompt_logprobs = read_outputs(from);
  }
  return result;
}

bool fits(const PassBoard::Want& want, const ExecutorLimits& limits) {
  const auto within = [](int64_t value, int64_t most) { return value >= 0 && value <= most; };
  return within(want.named, limits.max_step_tokens) && within(want.going_on, limits.max_slots) &&
         within(want.sampling, limits.max_slots) && within(want.graph_rows, limits.max_step_tokens) &&
         want.width >= 1 && want.width <= 1 + limits.max_drafts;
}

bool fits(const sample::GuessTree& tree, const ExecutorLimits& limits) {
  if (tree.tokens.size() != tree.parents.size() || tree.size() > limits.max_drafts) return false;
  for (int32_t i = 0; i < tree.size(); ++i) {
    const int32_t token = tree.tokens[static_cast<size_t>(i)];
    const int32_t parent = tree.parents[static_cast<size_t>(i)];
    if (token < 0 || token >= limits.vocab_size || parent < sample::GuessTree::kRoot || parent >= i)
      return false;
  }
  return true;
}

bool fits(const MaskQuestion& question, const ExecutorLimits& limits) {
  const MaskShape& shape = question.shape;
  if (shape.rows < 0 || shape.rows > limits.max_step_tokens || shape.width < 1 ||
      shape.width > 1 + limits.max_drafts || question.choices < 0 || question.choices > shape.rows) {
    return false;
  }
  const auto row = [&](int64_t index) { return index >= 0 && index < question.choices; };
  return std::all_of(question.masked.begin(), question.masked.end(),
                     [&](const MaskQuestion::Choice& choice) {
                       return row(choice.row) && choice.slot >= 0 && choice.slot < limits.max_slots &&
                              choice.chosen >= 0;
                     }) &&
         std::all_of(question.guessed.begin(), question.guessed.end(), [&](const GuessedRow& guessed) {
           return row(guessed.row) && fits(guessed.guesses, limits);
         });
}

bool fits(const StepResult& result, const ExecutorLimits& limits) {
  const auto token = [&](int32_t id) { return id >= 0 && id < limits.vocab_size; };
  const auto outputs = [&](const std::vector<TokenOutput>& all) {
    return std::all_of(all.begin(), all.end(),
                       [&](const TokenOutput& output) { return token(output.token); });
  };
  return std::all_of(result.rows.begin(), result.rows.end(), [&](const RowResult& row) {
    return row.slot >= 0 && row.slot < limits.max_slots && outputs(row.outputs) &&
           outputs(row.prompt_logprobs);
  });
}

}  // namespace

std::string encode_want(int32_t group, const PassBoard::Want& want) {
  std::string bytes;
  ByteWriter to(bytes);
  to.byte(kWant);
  to.number(group);
  for (const int64_t value : {want.named, want.going_on, want.sampling, want.graph_rows})
    to.number(static_cast<int32_t>(value));
  to.number(want.width);
  return bytes;
}

std::string encode_question(int32_t group, const MaskQuestion& question) {
  std::string bytes;
  ByteWriter to(bytes);
  to.byte(kQuestion);
  to.number(group);
  to.wide(question.step);
  to.number(static_cast<int32_t>(question.shape.rows));
  to.number(static_cast<int32_t>(question.shape.width));
  to.byte(question.shape.by_row ? 1 : 0);
  to.number(question.choices);
  to.number(static_cast<int32_t>(question.masked.size()));
  for (const auto& choice : question.masked) {
    for (const int32_t value : {choice.row, choice.slot, choice.chosen}) to.number(value);
  }
  to.number(static_cast<int32_t>(question.guessed.size()));
  for (const auto& row : question.guessed) {
    to.number(static_cast<int32_t>(row.row));
    to.list(row.guesses.tokens);
    to.list(row.guesses.parents);
  }
  return bytes;
}

std::string encode_answer(int32_t group, const StepResult& result, const DeviceClock& clock) {
  std::string bytes;
  ByteWriter to(bytes);
  to.byte(kAnswer);
  to.number(group);
  to.wide(std::bit_cast<uint64_t>(clock.busy));
  to.wide(std::bit_cast<uint64_t>(clock.idle));
  to.wide(result.step);
  to.number(static_cast<int32_t>(result.rows.size()));
  for (const RowResult& row : result.rows) {
    to.number(row.slot);
    to.number(row.drafted);
    write(to, row.outputs);
    write(to, row.prompt_logprobs);
  }
  return bytes;
}

Result<LeaderMessage> parse_leader_message(std::string_view bytes, int32_t groups,
                                           const ExecutorLimits& limits) {
  ByteReader from(bytes);
  LeaderMessage message;
  const uint8_t kind = from.byte();
  message.group = from.number();
  bool sound = message.group >= 0 && message.group < groups;
  if (kind == kWant) {
    sound = sound && fits(message.want.emplace(read_want(from)), limits);
  } else if (kind == kQuestion) {
    sound = sound && fits(message.question.emplace(read_question(from)), limits);
  } else if (kind == kAnswer) {
    LeaderMessage::Answer& answer = message.answer.emplace();
    answer.clock.busy = std::bit_cast<double>(from.wide());
    answer.clock.idle = std::bit_cast<double>(from.wide());
    answer.result = read_result(from);
    sound = sound && fits(answer.result, limits);
  } else {
    sound = false;
  }
  if (sound && from.done()) return message;
  return error(ErrorCode::kInternal, "{} bytes that no leader of this model sends", bytes.size());
}

}  // namespace fathom::engine
