// Thinking budgets and custom logit processors.
#include <cmath>

#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

constexpr int32_t kThink = 3039;
constexpr int32_t kThinkEnd = 3040;

ServiceOptions with_processors() {
  ServiceOptions options = parsing_options();
  options.custom_logit_processors = true;
  return options;
}

std::string hex(const std::string& bytes) {
  std::string out;
  for (const char c : bytes) out += fmt::format("{:02x}", static_cast<unsigned char>(c));
  return out;
}

// What to_str() gives of a class, in the bytes of pickle's protocol 4.
std::string processor(const std::string& name,
                      const std::string& module = "sglang.srt.sampling.custom_logit_processor") {
  const auto text = [](const std::string& value) {
    return std::string("\x8c") + static_cast<char>(value.size()) + value + "\x94";
  };
  const std::string frame = text(module) + text(name) + "\x93\x94.";
  std::string pickle = "\x80\x04\x95";
  pickle += static_cast<char>(frame.size());
  pickle += std::string(7, '\0') + frame;
  return ordered_json({{"callable", hex(pickle)}}).dump();
}

std::string chat_with(const ordered_json& fields) {
  ordered_json body = {{"messages", {{{"role", "user"}, {"content", "Hello"}}}}};
  if (fields.is_object()) body.update(fields);
  return body.dump();
}

TEST(ThinkingBudget, IsReadByEveryName) {
  const ordered_json thinking = {{"thinking", true}};
  for (const ordered_json& fields :
       {ordered_json{{"thinking_budget", 5}, {"chat_template_kwargs", thinking}},
        ordered_json{{"max_thinking_tokens", 5}, {"chat_template_kwargs", thinking}},
        ordered_json{{"thinking_budget", 5}, {"max_thinking_tokens", 5}, {"chat_template_kwargs", thinking}},
        ordered_json{{"thinking", {{"type", "enabled"}, {"budget_tokens", 5}}}}}) {
    Desk desk(says("ok"), parsing_options());
    desk.json(kChat, chat_with(fields));
    const ThinkingBudget budget = desk.sink.requests().at(0).sampling.thinking;
    EXPECT_EQ(budget.tokens, 5) << fields;
    EXPECT_EQ(budget.start, kThink);
    EXPECT_EQ(budget.end, kThinkEnd);
    EXPECT_EQ(budget.line_break, demo_tokenizer().encode("\n", false).at(0));
    EXPECT_EQ(budget.begun, 0);
  }
  Desk plain(says("ok"), parsing_options());
  plain.json(kChat, chat_with({{"thinking_budget", 5}}));
  EXPECT_EQ(plain.sink.requests().at(0).sampling.thinking.begun, -1) << "thinking is off";
  plain.json(kChat, chat_with({}));
  EXPECT_EQ(plain.sink.requests().at(1).sampling.thinking.tokens, -1);
}

TEST(ThinkingBudget, CountsWhatThePromptHasBegun) {
  Desk desk(says("ok"));
  desk.json(kCompletions, R"({"prompt": "Hi<｜Assistant｜><think>One two", "thinking_budget": 9})");
  const auto request = desk.sink.requests().at(0);
  const auto begun = demo_tokenizer().encode("One two", false).size();
  EXPECT_EQ(request.sampling.thinking.begun, static_cast<int32_t>(begun));
  desk.json("/generate", R"({"text": ["<think>a</think>b", "<think>"], "max_thinking_tokens": [3, 4]})");
  EXPECT_EQ(desk.sink.requests().at(1).sampling.thinking.begun, -1);
  EXPECT_EQ(desk.sink.requests().at(1).sampling.thinking.tokens, 3);
  EXPECT_EQ(desk.sink.requests().at(2).sampling.thinking.begun, 0);
  EXPECT_EQ(desk.sink.requests().at(2).sampling.thinking.tokens, 4);
  desk.json("/generate", R"({"text": "<think>", "sampling_params": {"thinking_budget": 0}})");
  EXPECT_EQ(desk.sink.requests().at(3).sampling.thinking.tokens, 0);
}

TEST(ThinkingBudget, RefusesWhatIsNone) {
  Desk desk(says("ok"));
  for (const ordered_json& fields :
       {ordered_json{{"thinking_budget", -1}}, ordered_json{{"thinking_budget", "5"}},
        ordered_json{{"max_thinking_tokens", 1.5}},
        ordered_json{{"thinking_budget", 5}, {"max_thinking_tokens", 6}},
        ordered_json{{"thinking_budget", 5}, {"thinking", {{"type", "enabled"}, {"budget_tokens", 6}}}}}) {
    desk.json(kChat, chat_with(fields), 400);
  }
  desk.json("/generate", R"({"text": "x", "thinking_budget": 5, "sampling_params": {"thinking_budget": 6}})",
            400);
  desk.json("/generate", R"({"text": ["x", "y"], "max_thinking_tokens": [1]})", 400);
  EXPECT_TRUE(desk.sink.requests().empty());
  Desk ids(says("ok"), {}, false);
  ids.json("/generate", R"({"input_ids": [5], "thinking_budget": 5})", 400);
}

TEST(LogitProcessors, NeedTheServersConsent) {
  Desk desk(says("ok"));
  const auto refused =
      desk.json(kChat,
                chat_with({{"custom_logit_processor", processor("DisallowedTokensLogitsProcessor")},
                           {"custom_params", {{"token_ids", {5}}}}}),
                400);
  EXPECT_EQ(refused["error"]["message"],
            "The server is not configured to enable custom logit processor. Please set "
            "`--enable-custom-logit-processor` to enable this feature.");
}

TEST(LogitProcessors, BoundThoughts) {
  for (const char* name :
       {"DeepSeekR1ThinkingBudgetLogitProcessor", "DeepSeekV3ThinkingBudgetLogitProcessor"}) {
    Desk desk(says("ok"), with_processors());
    desk.json(kChat, chat_with({{"custom_logit_processor", processor(name)},
                                {"custom_params", {{"thinking_budget", 7}}},
                                {"thinking", {{"type", "enabled"}}}}));
    EXPECT_EQ(desk.sink.requests().at(0).sampling.thinking.tokens, 7);
    // As the class: without a number, or with a negative one, nothing is bounded.
    desk.json(kChat, chat_with({{"custom_logit_processor", processor(name)}}));
    EXPECT_EQ(desk.sink.requests().at(1).sampling.thinking.tokens, -1);
    desk.json(kChat, chat_with({{"custom_logit_processor", processor(name)},
                                {"custom_params", {{"thinking_budget", -1}}}}));
    EXPECT_EQ(desk.sink.requests().at(2).sampling.thinking.tokens, -1);
  }
}

TEST(LogitProcessors, DisallowTokensAndRepetitions) {
  Desk desk(says("ok"), with_processors());
  ordered_json body = {
      {"text", "abc"},
      {"custom_logit_processor", processor("DisallowedTokensLogitsProcessor")},
      {"sampling_params", {{"custom_params", {{"token_ids", {5, 6}}}}, {"logit_bias", {{"5", 3}}}}}};
  desk.json("/generate", body.dump());
  const auto bias = desk.sink.requests().at(0).sampling.logit_bias;
  ASSERT_EQ(bias.size(), 2u);
  for (const auto& [token, value] : bias) {
    EXPECT_TRUE(token == 5 || token == 6);
    EXPECT_TRUE(std::isinf(value) && value < 0);
  }
  body = {{"input_ids", {{1, 2, 3, 1, 2}, {1, 2}}},
          {"custom_logit_processor", {processor("DeepseekOCRNoRepeatNGramLogitProcessor"), nullptr}},
          {"sampling_params",
           {{{"custom_params", {{"ngram_size", 3}, {"window_size", 90}}}}, ordered_json::object()}}};
  desk.json("/generate", body.dump());
  const auto first = desk.sink.requests().at(1);
  ASSERT_NE(first.mask, nullptr);
  std::vector<uint64_t> allowed(num_mask_words(3072));
  ASSERT_TRUE(first.mask->begin()->fill(allowed).ok());
  EXPECT_EQ(allowed[0], ~(uint64_t{1} << 3));
  EXPECT_EQ(desk.sink.requests().at(2).mask, nullptr);
}

TEST(LogitProcessors, RefuseWhatTheyDoNotKnow) {
  Desk desk(says("ok"), with_processors());
  const auto refusal = [&](const ordered_json& fields) {
    const auto answer = desk.json(kChat, chat_with(fields), 400);
    return answer["error"]["message"].get<std::string>();
  };
  const auto holds = [](const std::string& text, const std::string& part) {
    return text.find(part) != std::string::npos;
  };
  const std::string names = "DeepSeekR1ThinkingBudgetLogitProcessor";
  EXPECT_TRUE(holds(refusal({{"custom_logit_processor", processor("Mine")}}), names));
  EXPECT_TRUE(holds(refusal({{"custom_logit_processor", processor("DisallowedTokensLogitsProcessor", "os")}}),
                    names));
  EXPECT_TRUE(holds(refusal({{"custom_logit_processor", processor("Qwen3ThinkingBudgetLogitProcessor")}}),
                    "another model"));
  const std::string call = ordered_json({{"callable", hex("cos\nsystem\n(S'true'\ntR.")}}).dump();
  EXPECT_TRUE(holds(refusal({{"custom_logit_processor", call}}), "runs no code"));
  for (const std::string& text : {std::string("x"), std::string("{}"), std::string(R"({"callable": 5})"),
                                  std::string(R"({"callable": "8"})"), std::string(R"({"callable": "zz"})"),
                                  std::string(R"({"callable": ""})")}) {
    refusal({{"custom_logit_processor", text}});
  }
  refusal({{"custom_logit_processor", 5}});
  refusal({{"custom_logit_processor", ordered_json({{"callable", std::string(100000, '8')}}).dump()}});
  refusal({{"custom_params", {{"thinking_budget", 5}}}});
  const auto known = processor("DisallowedTokensLogitsProcessor");
  refusal({{"custom_logit_processor", known}});
  refusal({{"custom_logit_processor", known}, {"custom_params", {{"token_ids", {99999}}}}});
  refusal({{"custom_logit_processor", known}, {"custom_params", {{"token_ids", {1}}, {"other", 1}}}});
  refusal({{"custom_logit_processor", known}, {"custom_params", "x"}});
  refusal({{"custom_logit_processor", processor("DeepseekOCRNoRepeatNGramLogitProcessor")},
           {"custom_params", {{"ngram_size", 0}, {"window_size", 90}}}});
  EXPECT_TRUE(desk.sink.requests().empty());
}

}  // namespace
}  // namespace fathom::api
