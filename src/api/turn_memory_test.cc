// Answers come back as the tokens they were made of.
#include "api/turn_memory.h"

#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

// One token a byte: the oddest tokenisation there is.
std::vector<int32_t> bytewise(const std::string& text) {
  std::vector<int32_t> ids;
  for (const char c : text) {
    for (int32_t id = 0; id < demo_tokenizer().vocab_size(); ++id) {
      if (demo_tokenizer().token_bytes(id) != std::string_view(&c, 1)) continue;
      ids.push_back(id);
      break;
    }
  }
  EXPECT_EQ(ids.size(), text.size());
  return ids;
}

std::vector<int32_t> joined(std::vector<int32_t> a, const std::vector<int32_t>& b) {
  a.insert(a.end(), b.begin(), b.end());
  return a;
}

const std::string kPrompt = "<｜User｜>Hello<｜Assistant｜></think>";
const std::string kEnd = "<｜end▁of▁sentence｜>";

TEST(TurnMemory, RecallsAnAnswerInItsTokens) {
  TurnMemory memory(demo_tokenizer());
  const auto prompt = demo_tokenizer().encode(kPrompt, false);
  const auto answer = joined(bytewise("Hi thére you"), {kEos});
  ASSERT_NE(demo_tokenizer().encode("Hi thére you", false).size(), answer.size() - 1);
  memory.remember("", kPrompt, prompt, answer);
  const auto begin = memory.recall("", kPrompt + "Hi thére you" + kEnd + "<｜User｜>More");
  EXPECT_EQ(begin.ids, joined(prompt, answer));
  EXPECT_EQ(begin.bytes, (kPrompt + "Hi thére you" + kEnd).size());
  EXPECT_EQ(memory.recall("salt", kPrompt + "Hi thére you" + kEnd).bytes, 0u) << "another namespace";
  EXPECT_EQ(memory.recall("", "<｜User｜>Hullo<｜Assistant｜></think>Hi").bytes, 0u);
}

TEST(TurnMemory, CutsWhereTheAnswerWasCut) {
  TurnMemory memory(demo_tokenizer());
  const auto prompt = demo_tokenizer().encode(kPrompt, false);
  int32_t word = 0;
  const auto is_word = [](std::string_view text) {
    return text.size() >= 3 && text.find_first_not_of("abcdefghijklmnopqrstuvwxyz") == std::string_view::npos;
  };
  while (!is_word(demo_tokenizer().token_bytes(word))) ++word;
  // A stop string took the end of the last token.
  const std::string begun(demo_tokenizer().token_bytes(word).substr(0, 2));
  memory.remember("", kPrompt, prompt, joined(bytewise("Hi "), {word}));
  const auto cut = memory.recall("", kPrompt + "Hi " + begun + kEnd + "<｜User｜>More");
  EXPECT_EQ(cut.ids, joined(prompt, bytewise("Hi ")));
  EXPECT_EQ(cut.bytes, (kPrompt + "Hi ").size());
  // A length limit fell within a character, which is not in the text.
  memory.remember("", kPrompt + "A", joined(prompt, bytewise("A")), bytewise("b\xc3"));
  EXPECT_EQ(memory.recall("", kPrompt + "Ab" + kEnd).bytes, (kPrompt + "Ab").size());
  EXPECT_EQ(memory.recall("", kPrompt + "Ab\xc3\xa9" + kEnd).bytes, kPrompt.size());
}

TEST(TurnMemory, LeavesAMessageThatTheClientWroteToTheTokenizer) {
  TurnMemory memory(demo_tokenizer());
  const auto prompt = demo_tokenizer().encode(kPrompt, false);
  memory.remember("", kPrompt, prompt, joined(bytewise("Hi there"), {kEos}));
  const auto edited = memory.recall("", kPrompt + "Hi where" + kEnd + "<｜User｜>More");
  EXPECT_EQ(edited.ids, prompt);
  EXPECT_EQ(edited.bytes, kPrompt.size());
  // A prompt that ends within a word says nothing about other words.
  const std::string open = kPrompt + "Once upon";
  memory.remember("", open, demo_tokenizer().encode(open, false), bytewise(" a time"));
  EXPECT_EQ(memory.recall("", kPrompt + "Once uponX" + kEnd).bytes, kPrompt.size());
  EXPECT_EQ(memory.recall("", kPrompt + "Once upon a time" + kEnd).bytes, (open + " a time").size());
}

TEST(TurnMemory, PrefersTheLongestAndKeepsAlternatives) {
  TurnMemory memory(demo_tokenizer());
  const auto prompt = demo_tokenizer().encode(kPrompt, false);
  for (const char* answer : {"Yes", "No", "Yes please"}) {
    memory.remember("", kPrompt, prompt, joined(bytewise(answer), {kEos}));
    memory.remember("", kPrompt, prompt, joined(bytewise(answer), {kEos}));
  }
  EXPECT_EQ(memory.turns(), 3u);
  EXPECT_EQ(memory.recall("", kPrompt + "No" + kEnd).ids, joined(prompt, joined(bytewise("No"), {kEos})));
  const std::string second = kPrompt + "No" + kEnd + "<｜User｜>Why?<｜Assistant｜></think>";
  const auto second_ids = demo_tokenizer().encode(second, false);
  memory.remember("", second, second_ids, joined(bytewise("So"), {kEos}));
  EXPECT_EQ(memory.recall("", second + "So" + kEnd + "x").ids,
            joined(second_ids, joined(bytewise("So"), {kEos})));
}

TEST(TurnMemory, StaysWithinItsBounds) {
  TurnMemory memory(demo_tokenizer(), 100'000);
  for (int i = 0; i < 1000; ++i) {
    const std::string prompt = kPrompt + std::to_string(i);
    memory.remember("", prompt, demo_tokenizer().encode(prompt, false), {kEos});
  }
  EXPECT_LT(memory.turns(), 300u);
  EXPECT_GT(memory.turns(), 100u);
  EXPECT_EQ(memory.recall("", kPrompt + "0" + kEnd).bytes, 0u);
  EXPECT_GT(memory.recall("", kPrompt + "999" + kEnd).bytes, 0u);
  memory.remember("", std::string(50'000, 'x'), {1}, {2});
  EXPECT_EQ(memory.recall("", std::string(50'000, 'x')).bytes, 0u) << "too large to keep";
}

FakeSink::Script says_bytewise(const std::string& text) {
  return [text](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    return tokens_of(request, bytewise(text));
  };
}

// Each prompt begins with the tokens of the last one and of its answer.
TEST(TurnMemory, KeepsAChatsTokensOverItsTurns) {
  Desk desk(says_bytewise("The answer is 4."));
  ordered_json messages = ordered_json::array();
  for (int turn = 0; turn < 4; ++turn) {
    messages.push_back({{"role", "user"}, {"content", "Question <｜User｜> " + std::to_string(turn)}});
    const auto answer = desk.json(kChat, ordered_json({{"messages", messages}}).dump());
    messages.push_back({{"role", "assistant"}, {"content", answer["choices"][0]["message"]["content"]}});
  }
  const auto requests = desk.sink.requests();
  ASSERT_EQ(requests.size(), 4u);
  for (size_t i = 1; i < requests.size(); ++i) {
    const auto before = joined(requests[i - 1].prompt, joined(bytewise("The answer is 4."), {kEos}));
    ASSERT_GT(requests[i].prompt.size(), before.size());
    EXPECT_TRUE(std::equal(before.begin(), before.end(), requests[i].prompt.begin())) << "turn " << i;
  }
  EXPECT_EQ(demo_tokenizer().decode(requests[3].prompt, false).find("\xEF\xB7"), std::string::npos);
  // With another salt nothing is known of them.
  desk.json(
      kChat,
      ordered_json({{"messages", messages}, {"continue_final_message", true}, {"cache_salt", "x"}}).dump());
  EXPECT_LT(desk.sink.requests().back().prompt.size(), requests[3].prompt.size());
}

FakeSink::Script misses(const CacheMiss& miss) {
  return [miss](const GenerateRequest& request) -> Result<std::vector<TokenEvent>> {
    auto events = tokens_of(request, demo_tokenizer().encode("ok", false));
    if (request.explain_miss != ExplainMiss::kNo) events[0].cache_miss = miss;
    return events;
  };
}

TEST(ExplainCache, TellsWhyAPromptWasNotCached) {
  const auto expected = demo_tokenizer().encode("Goodbye", false);
  const CacheMiss miss{MissReason::kFirstDifference, 2, expected};
  Desk desk(misses(miss));
  const std::string asked = std::string("{") + kHello + R"(, "explain_cache": true)";
  for (const auto& usage : {desk.json(kChat, asked + "}")["usage"],
                            desk.stream(kChat, asked + R"(, "stream": true})").back()["usage"]}) {
    const auto& told = usage["prompt_cache_miss"];
    EXPECT_EQ(told["reason"], "first_difference");
    EXPECT_EQ(told["hit_tokens"], 2);
    EXPECT_EQ(told["at_token"], 2);
    EXPECT_EQ(told["before_text"], "<｜begin▁of▁sentence｜><｜User｜>");
    EXPECT_EQ(told["got_text"], "Hello<｜Assistant｜></think>");
    EXPECT_EQ(told["expected_text"], "Goodbye");
  }
  EXPECT_FALSE(desk.json(kChat, std::string("{") + kHello + "}")["usage"].contains("prompt_cache_miss"));
  const auto native = desk.json("/generate", R"({"text": "Hello", "explain_cache": true})");
  EXPECT_EQ(native["meta_info"]["prompt_cache_miss"]["reason"], "first_difference");
  const auto completion = desk.json(kCompletions, R"({"prompt": "Hello", "explain_cache": true})");
  EXPECT_EQ(completion["usage"]["prompt_cache_miss"]["reason"], "first_difference");
  desk.json(kChat, std::string("{") + kHello + R"(, "explain_cache": 1})", 400);
}

TEST(ExplainCache, TellsNoMoreThanTheOperatorWants) {
  const CacheMiss miss{MissReason::kFirstDifference, 2, {5}};
  const std::string asked = std::string("{") + kHello + R"(, "explain_cache": true})";
  ServiceOptions options;
  options.cache_explanations = CacheExplanations::kOff;
  Desk off(misses(miss), options);
  EXPECT_EQ(off.json(kChat, asked, 400)["error"]["param"], "explain_cache");
  options.cache_explanations = CacheExplanations::kReasons;
  Desk reasons(misses(miss), options);
  EXPECT_EQ(reasons.json(kChat, asked)["usage"]["prompt_cache_miss"],
            ordered_json({{"reason", "first_difference"}, {"hit_tokens", 2}}));
  EXPECT_EQ(reasons.sink.requests().at(0).explain_miss, ExplainMiss::kOwnNamespace);
  options.cache_explanations = CacheExplanations::kAll;
  Desk all(misses(miss), options);
  all.json(kChat, asked);
  EXPECT_EQ(all.sink.requests().at(0).explain_miss, ExplainMiss::kAllNamespaces);
}

}  // namespace
}  // namespace fathom::api
