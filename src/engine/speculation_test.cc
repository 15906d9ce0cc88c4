#include "engine/speculation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <random>
#include <tuple>

#include "base/log.h"
#include "engine/draft_tree.h"
#include "engine/drafter.h"
#include "engine/settings.h"

namespace fathom::engine {
namespace {

model::ModelConfig with_mtp(int64_t layers) {
  model::ModelConfig config;
  config.mtp_layers = layers;
  return config;
}

SpeculationSettings flags(std::string algorithm, int32_t steps = 0, int32_t topk = 0, int32_t tokens = 0,
                          std::string path = "") {
  return {std::move(algorithm), steps, topk, tokens, std::move(path)};
}

TEST(SpeculationFlags, HaveTheReferencesDefaults) {
  const auto off = resolve_speculation({}, with_mtp(1), "m");
  ASSERT_TRUE(off.ok());
  EXPECT_EQ(off->max_drafts, 0);
  for (const char* name : {"EAGLE", "NEXTN"}) {
    const auto layer = resolve_speculation(flags(name), with_mtp(1), "m");
    ASSERT_TRUE(layer.ok());
    EXPECT_EQ(layer->source, Speculation::Source::kDraftLayer);
    EXPECT_EQ(layer->max_drafts, 3);
  }
  const auto lookup = resolve_speculation(flags("NGRAM", 0, 0, 6), with_mtp(0), "m");
  ASSERT_TRUE(lookup.ok());
  EXPECT_EQ(lookup->source, Speculation::Source::kLookup);
  EXPECT_EQ(lookup->max_drafts, 5);
  const auto tree = resolve_speculation(flags("EAGLE", 3, 4, 16), with_mtp(1), "m");
  ASSERT_TRUE(tree.ok());
  EXPECT_EQ(tree->max_guesses, 15);
  EXPECT_EQ(tree->max_drafts, 15);
  EXPECT_EQ(resolve_speculation(flags("EAGLE", 5, 4, 8), with_mtp(1), "m")->max_drafts, 16)
      << "the draft layer's own entries need more places";
  const auto own = resolve_speculation(flags("EAGLE", 1, 0, 0, "m"), with_mtp(1), "m");
  ASSERT_TRUE(own.ok());
  EXPECT_EQ(own->max_drafts, 1);
}

TEST(SpeculationFlags, AreRefusedWithAReason) {
  const auto reason = [](const SpeculationSettings& settings, int64_t layers) {
    const auto result = resolve_speculation(settings, with_mtp(layers), "models/a");
    return result.ok() ? std::string("accepted") : result.error().message;
  };
  const auto says = [](const std::string& message, const char* part) {
    return message.find(part) != std::string::npos;
  };
  EXPECT_PRED2(says, reason(flags("EAGLE3"), 1), "expected EAGLE or NEXTN");
  EXPECT_PRED2(says, reason(flags("EAGLE"), 0), "use NGRAM");
  EXPECT_PRED2(says, reason(flags("EAGLE", 0, 4), 1), "takes all three");
  EXPECT_PRED2(says, reason(flags("EAGLE", 3, 17, 16), 1), "2 to 16");
  EXPECT_PRED2(says, reason(flags("EAGLE", 2, 2, 8), 1), "give 7 or less");
  EXPECT_PRED2(says, reason(flags("NGRAM", 3, 4, 16), 1), "one continuation");
  EXPECT_PRED2(says, reason(flags("EAGLE", 2, 0, 4), 1), "give 3");
  EXPECT_PRED2(says, reason(flags("EAGLE", 99), 1), "expected 1 to 15");
  EXPECT_PRED2(says, reason(flags("EAGLE", 0, 0, 0, "models/b"), 1), "own MTP layer");
}

TEST(SpeculationFlags, APartOfTheVocabularyIsForTheDraftLayer) {
  SpeculationSettings settings = flags("EAGLE");
  settings.draft_vocab = 32768;
  ASSERT_TRUE(resolve_speculation(settings, with_mtp(1), "m").ok());
  EXPECT_EQ(resolve_speculation(settings, with_mtp(1), "m")->draft_vocab, 32768);
  settings.draft_vocab = -1;
  EXPECT_FALSE(resolve_speculation(settings, with_mtp(1), "m").ok());
  settings = flags("NGRAM");
  settings.draft_vocab = 32768;
  EXPECT_FALSE(resolve_speculation(settings, with_mtp(1), "m").ok());
}

TEST(SpeculationFlags, ThresholdsAreAnotherRule) {
  SpeculationSettings settings = flags("EAGLE");
  EXPECT_FALSE(resolve_speculation(settings, with_mtp(1), "m")->thresholds);
  settings.accept_threshold_single = 0.5;
  const auto single = resolve_speculation(settings, with_mtp(1), "m");
  ASSERT_TRUE(single.ok() && single->thresholds);
  EXPECT_EQ(single->thresholds->single, 0.5);
  EXPECT_EQ(single->thresholds->acc, 1.0);
  settings.accept_threshold_acc = 0.0;
  EXPECT_FALSE(resolve_speculation(settings, with_mtp(1), "m").ok());
  settings = flags("EAGLE");
  settings.use_rejection_sampling = false;
  const auto plain = resolve_speculation(settings, with_mtp(1), "m");
  ASSERT_TRUE(plain.ok() && plain->thresholds);
  EXPECT_EQ(plain->thresholds->single, 1.0);
}

class LookupTest : public testing::Test {
 protected:
  std::vector<int32_t> guess(const std::vector<int32_t>& prompt, int32_t drafts) {
    SlotInit init;
    init.prompt = prompt;
    lookup_->open(1, init);
    DraftRow row;
    row.slot = 1;
    row.drafts = drafts;
    lookup_->draft(launch_, {&row, 1});
    return row.guesses.tokens;
  }

  ThreadPool pool_{1};
  device::Launch launch_{pool_};
  std::unique_ptr<Drafter> lookup_ = make_lookup(2);
};

TEST_F(LookupTest, TakesWhatFollowedTheLongestMatch) {
  EXPECT_EQ(guess({5, 6, 7, 8, 9, 6, 1, 5, 6}, 2), (std::vector<int32_t>{7, 8}));
  EXPECT_EQ(guess({6, 1, 4, 6, 2, 6}, 1), (std::vector<int32_t>{2})) << "the latest of equals";
  EXPECT_TRUE(guess({1, 2, 3}, 4).empty());
  EXPECT_TRUE(guess({1}, 4).empty());
  EXPECT_TRUE(guess({1, 1}, 0).empty());
}

TEST_F(LookupTest, GoesOnWithItsOwnGuesses) {
  EXPECT_EQ(guess({4, 7, 8, 7, 8}, 5), (std::vector<int32_t>{7, 8, 7, 8, 7}));
  EXPECT_EQ(guess({3, 3}, 3), (std::vector<int32_t>{3, 3, 3}));
}

// Against a search through all that was before; sequences short enough for every place to be compared.
TEST_F(LookupTest, FindsWhatAPlainSearchFinds) {
  constexpr size_t kLongestMatch = 12;
  std::mt19937 random(7);
  for (int round = 0; round < 2000; ++round) {
    const int32_t alphabet = 1 + static_cast<int32_t>(random() % 6);
    std::vector<int32_t> tokens(1 + random() % 250);
    for (int32_t& token : tokens) token = static_cast<int32_t>(random() % static_cast<uint32_t>(alphabet));
    size_t best = 0, best_length = 0;
    for (size_t end = tokens.size() - 1; end > 0; --end) {
      size_t length = 0;
      while (length < std::min(end, kLongestMatch) &&
             tokens[end - 1 - length] == tokens[tokens.size() - 1 - length])
        ++length;
      if (length <= best_length) continue;
      best_length = length;
      best = end;
    }
    std::vector<int32_t> expected;
    if (best > 0) expected.push_back(tokens[best]);
    ASSERT_EQ(guess(tokens, 1), expected) << "round " << round << ", " << tokens.size() << " tokens";
  }
}

TEST_F(LookupTest, FollowsTheOutputs) {
  guess({9, 8, 7}, 1);
  std::vector<TokenOutput> outputs(2);
  outputs[0].token = 5;
  outputs[1].token = 9;
  ComputedRow computed;
  computed.slot = 1;
  computed.outputs = outputs;
  lookup_->follow(launch_, {&computed, 1}, {});
  DraftRow row;
  row.slot = 1;
  row.drafts = 2;
  lookup_->draft(launch_, {&row, 1});
  EXPECT_EQ(row.guesses.tokens, (std::vector<int32_t>{8, 7}));
}

struct Generated {
  std::vector<int32_t> tokens;
  int64_t steps = 0, drafted = 0;
};

// The GPU's turn: FATHOM_TEST_DEVICE=cuda.
std::string test_device() {
  const char* wish = std::getenv("FATHOM_TEST_DEVICE");
  return wish != nullptr ? wish : "cpu";
}

// `count` tokens after the prompt, which comes in two pieces, beside another sequence where `other` is one.
Generated generate(const std::string& model, const SpeculationSettings& speculation,
                   const std::vector<int32_t>& prompt, int32_t count, bool other, float temperature,
                   bool mla = true) {
  set_log_level(LogLevel::kWarning);
  Settings settings;
  settings.model_path = std::string(FATHOM_SOURCE_DIR) + "/" + model;
  settings.device = test_device();
  settings.dtype = "float32";
  settings.threads = 2;
  settings.page_size = 8;
  settings.max_total_tokens = 512;
  settings.max_running_requests = 2;
  settings.chunked_prefill_size = 64;
  settings.speculation = speculation;
  settings.disable_mla = !mla;
  ModelFacts facts;
  const auto engine = start_engine(settings, &facts).value();
  const int32_t drafts = engine->limits().max_drafts;
  BatchPlan plan;
  const auto run = [&] { return engine->step(std::exchange(plan, {})).get().value(); };
  for (int32_t slot = 0; slot < (other ? 2 : 1); ++slot) {
    SlotInit init;
    init.sampling.temperature = temperature;
    init.sampling.seed = 11;
    init.prompt = prompt;
    std::vector<int32_t> pages;
    for (int32_t page = 0; page < 20; ++page) pages.push_back(slot * 20 + (page * 7) % 20);
    plan.open.push_back({slot, init, pages});
  }
  const auto length = static_cast<int32_t>(prompt.size());
  const int32_t cut = length / 3;
  BatchRow row;
  row.mode = RowMode::kExtend;
  row.tokens.assign(prompt.begin(), prompt.begin() + cut);
  plan.rows.push_back(row);
  run();
  row.start = cut;
  row.tokens.assign(prompt.begin() + cut, prompt.end());
  row.sample = true;
  plan.rows.push_back(row);
  int32_t other_position = 0;
  if (other) {
    row.slot = 1;
    row.start = 0;
    row.tokens = prompt;
    plan.rows.push_back(row);
    other_position = length;
  }
  Generated result;
  result.tokens.push_back(run().rows[0].outputs[0].token);
  while (static_cast<int32_t>(result.tokens.size()) < count) {
    BatchRow next;
    next.sample = true;
    next.drafts = drafts;
    next.start = length + static_cast<int32_t>(result.tokens.size()) - 1;
    plan.rows.push_back(next);
    if (other) {
      next.slot = 1;
      next.drafts = drafts / 2;
      next.start = other_position;
      plan.rows.push_back(next);
    }
    const StepResult done = run();
    for (const TokenOutput& output : done.rows[0].outputs) result.tokens.push_back(output.token);
    EXPECT_LE(done.rows[0].outputs.size(), static_cast<size_t>(done.rows[0].drafted) + 1);
    result.drafted += done.rows[0].drafted;
    ++result.steps;
    if (other) other_position += static_cast<int32_t>(done.rows[1].outputs.size());
  }
  result.tokens.resize(static_cast<size_t>(count));
  return result;
}

std::vector<int32_t> random_prompt(int32_t vocab) {
  std::mt19937 random(3);
  std::vector<int32_t> prompt(40);
  for (auto& token : prompt) token = static_cast<int32_t>(random() % static_cast<unsigned>(vocab));
  return prompt;
}

// A draft layer that knows nothing costs time only; prompt tokens that repeat are guessed by look-up.
TEST(Speculation, ARandomDraftLayerChangesNothing) {
  const std::string model = "tests/golden/v3";
  const auto prompt = random_prompt(100);
  for (const float temperature : {0.0F, 0.9F}) {
    const auto plain = generate(model, {}, prompt, 40, false, temperature);
    EXPECT_EQ(plain.steps, 39);
    for (const char* algorithm : {"EAGLE", "NGRAM"}) {
      for (const bool other : {false, true}) {
        const auto guessed = generate(model, flags(algorithm), prompt, 40, other, temperature);
        EXPECT_EQ(guessed.tokens, plain.tokens) << algorithm << other;
        EXPECT_GT(guessed.drafted, 0) << algorithm;
      }
    }
  }
}

TEST(Speculation, TheDemosDraftLayerSavesSteps) {
  const auto prompt = random_prompt(3000);
  const auto plain = generate("models/demo", {}, prompt, 60, false, 0.0F);
  const auto guessed = generate("models/demo", flags("NEXTN"), prompt, 60, true, 0.0F);
  EXPECT_EQ(guessed.tokens, plain.tokens);
  EXPECT_LT(guessed.steps, plain.steps * 3 / 4);
}

// Trees of all shapes: wide, deep, and such as leave most of their candidates out.
TEST(Speculation, TreesChangeNothing) {
  const auto prompt = random_prompt(100);
  for (const bool mla : {true, false}) {
    for (const float temperature : {0.0F, 0.9F}) {
      const auto plain = generate("tests/golden/v3", {}, prompt, 40, false, temperature, mla);
      const auto demo = generate("models/demo", {}, prompt, 40, false, temperature, mla);
      for (const auto& [steps, branches, tokens] :
           {std::tuple{3, 4, 16}, std::tuple{1, 3, 4}, std::tuple{5, 2, 6}, std::tuple{4, 8, 40}}) {
        const auto tree = flags("EAGLE", steps, branches, tokens);
        const bool other = steps != 1;
        const auto guessed = generate("tests/golden/v3", tree, prompt, 40, other, temperature, mla);
        EXPECT_EQ(guessed.tokens, plain.tokens) << steps << branches << tokens;
        EXPECT_GT(guessed.drafted, guessed.steps);
        const auto trained = generate("models/demo", tree, prompt, 40, other, temperature, mla);
        EXPECT_EQ(trained.tokens, demo.tokens) << steps << branches << tokens;
        if (temperature == 0.0F) {
          EXPECT_LT(trained.steps, demo.steps);
        }
      }
    }
  }
}

// Under the thresholds' rule greedy tokens are what they are; drawn ones are the guesses, where the
// thresholds let nearly all of them in.
TEST(Speculation, ThresholdsFavourGuesses) {
  const auto prompt = random_prompt(100);
  const auto greedy = generate("tests/golden/v3", {}, prompt, 40, false, 0.0F);
  for (const bool tree : {false, true}) {
    SpeculationSettings settings = tree ? flags("EAGLE", 3, 4, 16) : flags("EAGLE");
    settings.accept_threshold_acc = 1e-12;
    EXPECT_EQ(generate("tests/golden/v3", settings, prompt, 40, true, 0.0F).tokens, greedy.tokens);
    const auto favoured = generate("tests/golden/v3", settings, prompt, 40, true, 0.9F);
    EXPECT_LT(favoured.steps, 20);
    settings.accept_threshold_acc = 1.0;
    EXPECT_LT(favoured.steps, generate("tests/golden/v3", settings, prompt, 40, true, 0.9F).steps);
  }
}

TEST(DraftTree, KeepsTheMostLikelyBranches) {
  DraftTree tree;
  const int32_t a = tree.add(DraftTree::kRoot, 10, -0.5F);
  const int32_t b = tree.add(DraftTree::kRoot, 11, -1.0F);
  EXPECT_EQ(tree.best(0, 5), (std::vector<int32_t>{a, b}));
  const int32_t aa = tree.add(a, 20, -2.0F);
  const int32_t ab = tree.add(a, 21, -0.1F);
  const int32_t ba = tree.add(b, 22, 0.5F);  // counts as certain
  tree.add(b, 23, std::nanf(""));
  EXPECT_EQ(tree.best(aa, 2), (std::vector<int32_t>{ab, ba}));
  EXPECT_EQ(tree.tree(4).tokens, (std::vector<int32_t>{10, 21, 11, 22}));
  EXPECT_EQ(tree.tree(4).parents, (std::vector<int32_t>{-1, 0, -1, 2}));
  EXPECT_EQ(tree.tree(5).tokens, (std::vector<int32_t>{10, 21, 20, 11, 22}));
  EXPECT_EQ(tree.tree(5).parents, (std::vector<int32_t>{-1, 0, 0, -1, 3}));
  EXPECT_EQ(tree.tree(100).size(), 6);
  EXPECT_TRUE(tree.tree(0).empty());
}

}  // namespace
}  // namespace fathom::engine
