#include "engine/leader_wire.h"

#include <algorithm>
#include <bit>

#include "engine/message_frame.h"

namespace fathom::engine {
namespace {

constexpr uint8_t kWant = 1, kQuestion = 2, kAnswer = 3;

void write(ByteWriter& to, const std::vector<TokenLogprob>& values) {
  to.items(values, [&](const TokenLogprob& value) {
    to.number(value.token);
    to.real(value.logprob);
  });
}

std::vector<TokenLogprob> read_logprobs(ByteReader& from) {
  return from.items(8, [](ByteReader& one) {
    const int32_t token = one.number();
    return TokenLogprob{token, one.real()};
  });
}

void write(ByteWriter& to, const std::vector<TokenOutput>& outputs) {
  to.items(outputs, [&](const TokenOutput& output) {
    to.number(output.token);
    to.real(output.logprob);
    write(to, output.top);
    write(to, output.requested);
  });
}

std::vector<TokenOutput> read_outputs(ByteReader& from) {
  return from.items(16, [](ByteReader& one) {
    TokenOutput output;
    output.token = one.number();
    output.logprob = one.real();
    output.top = read_logprobs(one);
    output.requested = read_logprobs(one);
    return output;
  });
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
  question.shape.by_row = from.flag();
  question.choices = from.number();
  question.masked = from.items(12, [](ByteReader& one) {
    MaskQuestion::Choice choice;
    for (int32_t* value : {&choice.row, &choice.slot, &choice.chosen}) *value = one.number();
    return choice;
  });
  question.guessed = from.items(12, [](ByteReader& one) {
    GuessedRow row;
    row.row = one.number();
    row.guesses.tokens = one.list<int32_t>();
    row.guesses.parents = one.list<int32_t>();
    return row;
  });
  return question;
}

LeaderMessage::Answer read_answer(ByteReader& from) {
  LeaderMessage::Answer answer;
  answer.clock.busy = std::bit_cast<double>(from.wide());
  answer.clock.idle = std::bit_cast<double>(from.wide());
  answer.result.step = from.wide();
  answer.result.rows = from.items(16, [](ByteReader& one) {
    RowResult row;
    row.slot = one.number();
    row.drafted = one.number();
    row.outputs = read_outputs(one);
    row.prompt_logprobs = read_outputs(one);
    return row;
  });
  return answer;
}

bool fits(const PassBoard::Want& want, const ExecutorLimits& limits) {
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
  return frame_message(kWant, group, [&](ByteWriter& to) {
    for (const int64_t value : {want.named, want.going_on, want.sampling, want.graph_rows})
      to.number(static_cast<int32_t>(value));
    to.number(want.width);
  });
}

std::string encode_question(int32_t group, const MaskQuestion& question) {
  return frame_message(kQuestion, group, [&](ByteWriter& to) {
    to.wide(question.step);
    to.number(static_cast<int32_t>(question.shape.rows));
    to.number(static_cast<int32_t>(question.shape.width));
    to.flag(question.shape.by_row);
    to.number(question.choices);
    to.items(question.masked, [&](const MaskQuestion::Choice& choice) {
      for (const int32_t value : {choice.row, choice.slot, choice.chosen}) to.number(value);
    });
    to.items(question.guessed, [&](const GuessedRow& row) {
      to.number(static_cast<int32_t>(row.row));
      to.list(row.guesses.tokens);
      to.list(row.guesses.parents);
    });
  });
}

std::string encode_answer(int32_t group, const StepResult& result, const DeviceClock& clock) {
  return frame_message(kAnswer, group, [&](ByteWriter& to) {
    to.wide(std::bit_cast<uint64_t>(clock.busy));
    to.wide(std::bit_cast<uint64_t>(clock.idle));
    to.wide(result.step);
    to.items(result.rows, [&](const RowResult& row) {
      to.number(row.slot);
      to.number(row.drafted);
      write(to, row.outputs);
      write(to, row.prompt_logprobs);
    });
  });
}

Result<LeaderMessage> parse_leader_message(std::string_view bytes, int32_t groups,
                                           const ExecutorLimits& limits) {
  LeaderMessage message;
  FATHOM_TRY(read_message(bytes, groups, "a leader", [&](uint8_t kind, int32_t group, ByteReader& from) {
    message.group = group;
    if (kind == kWant) return fits(message.want.emplace(read_want(from)), limits);
    if (kind == kQuestion) return fits(message.question.emplace(read_question(from)), limits);
    return kind == kAnswer && fits(message.answer.emplace(read_answer(from)).result, limits);
  }));
  return message;
}

}  // namespace fathom::engine
