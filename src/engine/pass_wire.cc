#include "engine/pass_wire.h"

#include <algorithm>
#include <utility>

#include "base/math.h"
#include "engine/byte_stream.h"

namespace fathom::engine {
namespace {

constexpr uint8_t kAsleep = 0;  // a group that is not told of the pass; else 1 + its kind

void write_rows(ByteWriter& writer, const std::vector<ops::AttentionRow>& rows) {
  writer.number(static_cast<int32_t>(rows.size()));
  for (const auto& row : rows) {
    writer.number(row.first);
    writer.number(row.count);
    writer.number(row.start);
    writer.byte(row.goes_on ? 1 : 0);
  }
}

void write_group(ByteWriter& writer, const RankPass& pass) {
  writer.list(pass.token_ids);
  writer.list(pass.positions);
  writer.list(pass.places);
  writer.list(pass.logit_rows);
  write_rows(writer, pass.extend_rows);
  write_rows(writer, pass.decode_rows);
  for (const auto& table : pass.tables) writer.list(table);
  for (const auto& row : pass.decode_rows) {
    writer.byte(row.tail != nullptr ? 1 : 0);
    if (row.tail != nullptr) writer.number(row.tail_start);
  }
  for (const auto& tail : pass.tails) writer.list(tail);
  writer.list(pass.moves);
  writer.list(pass.hidden);
}

// Rows one after another from token `*next` on.
bool read_rows(ByteReader& reader, const PassLimits& limits, int64_t tokens, int64_t* next,
               std::vector<ops::AttentionRow>& rows) {
  const int32_t count = reader.number();
  if (!reader.ok() || count < 0 || count > tokens) return false;
  for (int32_t i = 0; i < count; ++i) {
    ops::AttentionRow row;
    row.first = reader.number();
    row.count = reader.number();
    row.start = reader.number();
    const uint8_t goes_on = reader.byte();
    row.goes_on = goes_on == 1;
    if (goes_on > 1 || row.first != *next || row.count < 1 || row.count > tokens - *next || row.start < 0 ||
        int64_t{row.start} + row.count > limits.max_context)
      return false;
    *next += row.count;
    rows.push_back(row);
  }
  return true;
}

bool read_tables(ByteReader& reader, const PassLimits& limits, RankPass& pass) {
  pass.tables.reserve(pass.extend_rows.size() + pass.decode_rows.size());
  for (auto* rows : {&pass.extend_rows, &pass.decode_rows}) {
    for (auto& row : *rows) {
      pass.tables.push_back(reader.list<int32_t>());
      const auto& table = pass.tables.back();
      if (static_cast<int64_t>(table.size()) != ceil_div<int64_t>(row.start + row.count, limits.page_size) ||
          !inside(table, limits.pages))
        return false;
      row.block_table = table.data();
    }
  }
  return true;
}

// Of the decode rows that have one: where the entries of their last places lie.
bool read_tails(ByteReader& reader, const PassLimits& limits, RankPass& pass) {
  std::vector<ops::AttentionRow*> branches;
  for (auto& row : pass.decode_rows) {
    const uint8_t branch = reader.byte();
    if (!reader.ok() || branch > 1) return false;
    if (branch == 0) continue;
    row.tail_start = reader.number();
    if (!reader.ok() || row.tail_start < 0 || row.tail_start >= row.start + row.count) return false;
    branches.push_back(&row);
  }
  pass.tails.reserve(branches.size());
  for (auto* row : branches) {
    pass.tails.push_back(reader.list<int64_t>());
    const auto& tail = pass.tails.back();
    if (static_cast<int64_t>(tail.size()) != row->start + row->count - row->tail_start ||
        !inside(tail, limits.pages * limits.page_size))
      return false;
    row->tail = tail.data();
  }
  return true;
}

bool read_moves(ByteReader& reader, const PassLimits& limits, RankPass& pass) {
  pass.moves = reader.list<model::KvMove>();
  const int64_t places = limits.pages * limits.page_size;
  return reader.ok() && std::ranges::all_of(pass.moves, [&](const model::KvMove& move) {
           return move.from >= 0 && move.from < places && move.to >= 0 && move.to < places;
         });
}

bool read_group(ByteReader& reader, const PassLimits& limits, RankPass& pass) {
  pass.token_ids = reader.list<int32_t>();
  pass.positions = reader.list<int32_t>();
  pass.places = reader.list<int64_t>();
  pass.logit_rows = reader.list<int32_t>();
  const int64_t tokens = pass.tokens();
  const auto as_many = [&](size_t count) { return static_cast<int64_t>(count) == tokens; };
  if (!reader.ok() || tokens > limits.max_tokens || !as_many(pass.positions.size()) ||
      !as_many(pass.places.size()) || !inside(pass.token_ids, limits.vocab) ||
      !inside(pass.positions, limits.max_context) || !inside(pass.places, limits.pages * limits.page_size))
    return false;
  // Further logits are of the forward pass before.
  const bool logits = pass.kind == RankPass::Kind::kLogits;
  if (static_cast<int64_t>(pass.logit_rows.size()) > limits.max_logit_rows || (logits && tokens > 0) ||
      !inside(pass.logit_rows, logits ? limits.max_tokens : tokens))
    return false;
  int64_t next = 0;
  if (!read_rows(reader, limits, tokens, &next, pass.extend_rows) ||
      !read_rows(reader, limits, tokens, &next, pass.decode_rows) || next != tokens ||
      !read_tables(reader, limits, pass) || !read_tails(reader, limits, pass) ||
      !read_moves(reader, limits, pass))
    return false;
  pass.hidden = reader.list<float>();
  const int64_t wanted = pass.kind == RankPass::Kind::kDraft ? tokens * limits.hidden : 0;
  return reader.ok() && static_cast<int64_t>(pass.hidden.size()) == wanted;
}

}  // namespace

std::string encode_pass(const WorldPass& pass) {
  std::string bytes;
  ByteWriter writer(bytes);
  writer.byte(pass.balance_experts ? 1 : 0);
  for (const auto& group : pass.groups) {
    writer.byte(group == nullptr ? kAsleep : static_cast<uint8_t>(1 + static_cast<uint8_t>(group->kind)));
    if (group != nullptr) write_group(writer, *group);
  }
  return bytes;
}

Result<WorldPass> parse_pass(std::string_view bytes, const PassLimits& limits) {
  ByteReader reader(bytes);
  WorldPass world;
  const uint8_t balance = reader.byte();
  if (balance > 1) return error(ErrorCode::kInvalidArgument, "a malformed pass: its begin");
  world.balance_experts = balance == 1;
  bool whole = true;  // all groups take part
  for (int group = 0; group < limits.groups; ++group) {
    const uint8_t kind = reader.byte();
    auto pass = std::make_shared<RankPass>();
    if (!reader.ok() || kind > 1 + static_cast<uint8_t>(RankPass::Kind::kLogits))
      return error(ErrorCode::kInvalidArgument, "a malformed pass: group {}", group);
    if (kind == kAsleep) {
      whole = false;
      world.groups.push_back(nullptr);
      continue;
    }
    pass->kind = static_cast<RankPass::Kind>(kind - 1);
    if (!read_group(reader, limits, *pass))
      return error(ErrorCode::kInvalidArgument, "a malformed pass: group {}", group);
    world.groups.push_back(std::move(pass));
  }
  if (!reader.done()) return error(ErrorCode::kInvalidArgument, "a malformed pass: its end");
  if (limits.groups > 1 && whole) {
    for (const auto& group : world.groups) world.group_tokens.push_back(group->tokens());
  }
  return world;
}

}  // namespace fathom::engine
