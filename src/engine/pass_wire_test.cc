#include "engine/pass_wire.h"

#include <gtest/gtest.h>

#include <random>

namespace fathom::engine {
namespace {

const PassLimits kLimits{.groups = 3,
                         .vocab = 100,
                         .hidden = 2,
                         .max_tokens = 20,
                         .max_logit_rows = 5,
                         .max_context = 40,
                         .page_size = 4,
                         .pages = 10};

// A prompt of 3 tokens after 6, and one output token at 9.
RankPass some_pass(RankPass::Kind kind) {
  const int32_t tables[2][3] = {{1, 2, 3}, {4, 5, 9}};
  const std::vector<ops::AttentionRow> extend = {{0, 3, 6, tables[0], nullptr, 0, true}};
  const std::vector<int64_t> tail = {38, 37};
  const std::vector<ops::AttentionRow> decode = {{3, 1, 9, tables[1], tail.data(), 8}};
  const std::vector<model::KvMove> moves = {{7, 3}, {39, 0}};
  const std::vector<int32_t> ids = {5, 6, 7, 99};
  const std::vector<int32_t> positions = {6, 7, 8, 9};
  const std::vector<int64_t> places = {10, 11, 12, 37};
  const std::vector<int32_t> logit_rows = {2, 3};
  model::ForwardBatch batch;
  batch.tokens = 4;
  batch.token_ids = ids.data();
  batch.positions = positions.data();
  batch.places = places.data();
  batch.extend_rows = extend;
  batch.decode_rows = decode;
  batch.logit_rows = logit_rows;
  batch.moves = moves;
  if (kind == RankPass::Kind::kForward) return RankPass::forward(batch, 4);
  const float states[4][2] = {{1, 2}, {3, 4}, {5, 6}, {7, 8}};
  const std::vector<const float*> hidden = {states[0], states[1], states[2], states[3]};
  return RankPass::draft({batch, hidden}, 4, 2);
}

WorldPass some_world(RankPass::Kind kind) {
  WorldPass world;
  world.groups.push_back(std::make_shared<RankPass>(some_pass(kind)));
  world.groups.push_back(std::make_shared<RankPass>(RankPass::idle(kind)));
  world.groups.push_back(std::make_shared<RankPass>(some_pass(kind)));
  world.group_tokens = {4, 0, 4};
  world.balance_experts = true;
  return world;
}

TEST(PassWire, APassComesAsItWasSent) {
  for (const auto kind : {RankPass::Kind::kForward, RankPass::Kind::kDraft}) {
    const WorldPass sent = some_world(kind);
    const auto got = parse_pass(encode_pass(sent), kLimits);
    ASSERT_TRUE(got.ok()) << got.error().message;
    EXPECT_EQ(got->group_tokens, sent.group_tokens);
    EXPECT_TRUE(got->balance_experts);
    ASSERT_EQ(got->groups.size(), 3U);
    for (const size_t group : {0, 1, 2}) {
      const RankPass& a = *sent.groups[group];
      const RankPass& b = *got->groups[group];
      EXPECT_EQ(a.kind, b.kind);
      EXPECT_EQ(a.token_ids, b.token_ids);
      EXPECT_EQ(a.positions, b.positions);
      EXPECT_EQ(a.places, b.places);
      EXPECT_EQ(a.logit_rows, b.logit_rows);
      EXPECT_EQ(a.tables, b.tables);
      EXPECT_EQ(a.hidden, b.hidden);
      EXPECT_EQ(a.tails, b.tails);
      ASSERT_EQ(a.moves.size(), b.moves.size());
      for (size_t i = 0; i < a.moves.size(); ++i) {
        EXPECT_EQ(a.moves[i].from, b.moves[i].from);
        EXPECT_EQ(a.moves[i].to, b.moves[i].to);
      }
      ASSERT_EQ(a.decode_rows.size(), b.decode_rows.size());
      ASSERT_EQ(a.extend_rows.size(), b.extend_rows.size());
      for (size_t i = 0; i < a.decode_rows.size(); ++i) {
        EXPECT_EQ(a.decode_rows[i].first, b.decode_rows[i].first);
        EXPECT_EQ(a.decode_rows[i].start, b.decode_rows[i].start);
        EXPECT_EQ(b.decode_rows[i].tail, b.tails[i].data());
        EXPECT_EQ(b.decode_rows[i].tail_start, 8);
        EXPECT_EQ(b.decode_rows[i].block_table, b.tables[b.extend_rows.size() + i].data());
      }
    }
  }
  WorldPass alone;
  alone.groups = {nullptr, std::make_shared<RankPass>(RankPass::logits(std::vector<int32_t>{0, 7})), nullptr};
  const auto got = parse_pass(encode_pass(alone), kLimits);
  ASSERT_TRUE(got.ok());
  EXPECT_EQ(got->groups[0], nullptr);
  EXPECT_TRUE(got->group_tokens.empty());
  EXPECT_FALSE(got->balance_experts);
  EXPECT_EQ(got->groups[1]->logit_rows, (std::vector<int32_t>{0, 7}));
}

TEST(PassWire, WhatIsOutsideTheLimitsIsRefused) {
  const auto refused = [](const std::function<void(RankPass&)>& change) {
    WorldPass world = some_world(RankPass::Kind::kForward);
    auto pass = some_pass(RankPass::Kind::kForward);
    change(pass);
    world.groups[2] = std::make_shared<RankPass>(std::move(pass));
    return !parse_pass(encode_pass(world), kLimits).ok();
  };
  EXPECT_FALSE(refused([](RankPass&) {}));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.token_ids[3] = 100; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.token_ids[3] = -1; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.token_ids.push_back(1); }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.positions[0] = 40; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.places[0] = 40; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.logit_rows[0] = 4; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.logit_rows.resize(6); }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.tables[1][2] = 10; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.tables[1].pop_back(); }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.decode_rows[0].first = 2; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.decode_rows[0].start = 40; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.extend_rows[0].count = 5; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.hidden.push_back(1.0F); }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.tails[0][1] = 40; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.tails[0].pop_back(); }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.decode_rows[0].tail_start = 10; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.moves[1].to = -1; }));
  EXPECT_TRUE(refused([](RankPass& pass) { pass.moves[0].from = 40; }));
  const std::string whole = encode_pass(some_world(RankPass::Kind::kDraft));
  for (size_t size = 0; size < whole.size(); ++size)
    EXPECT_FALSE(parse_pass(whole.substr(0, size), kLimits).ok()) << size;
  EXPECT_FALSE(parse_pass(whole + '\0', kLimits).ok());
}

}  // namespace
}  // namespace fathom::engine
