// The text layer's own endpoints, and filling in the middle.
#include "api/fixture.h"

namespace fathom::api {
namespace {

using nlohmann::ordered_json;

TEST(Parsing, SeparatesReasoning) {
  Desk desk(says("x"), parsing_options());
  const ordered_json answer =
      desk.json("/separate_reasoning", R"({"text": "so</think>Yes", "return_blocks": true})");
  EXPECT_EQ(answer["reasoning_text"], "so");
  EXPECT_EQ(answer["text"], "Yes");
  EXPECT_EQ(answer["blocks"].size(), 2u);
  EXPECT_EQ(desk.json("/separate_reasoning", R"({"text": "Yes"})")["text"], "Yes");
  EXPECT_EQ(desk.json("/separate_reasoning",
                      R"({"text": "Yes", "reasoning_parser": "deepseek-r1"})")["reasoning_text"],
            "Yes");
  desk.json("/separate_reasoning", R"({"text": "Yes", "reasoning_parser": "qwen3"})", 400);
  desk.json("/separate_reasoning", "{}", 400);
}

TEST(Parsing, ReadsFunctionCalls) {
  Desk desk(says("x"), parsing_options());
  const ordered_json answer = desk.json(
      "/parse_function_call", ordered_json({{"text",
                                             "Hm.<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"
                                             "\"a\": 1}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"},
                                            {"tool_call_parser", "deepseekv31"}})
                                  .dump());
  EXPECT_EQ(answer["normal_text"], "Hm.");
  EXPECT_EQ(answer["calls"].dump(), R"([{"tool_index":0,"name":"f","parameters":"{\"a\": 1}"}])");
}

TEST(Parsing, AppliesTheTemplate) {
  Desk desk(says("x"), parsing_options());
  const ordered_json answer = desk.json(
      "/apply-template",
      R"({"messages": [{"role": "user", "content": "a<think>"}], "thinking": {"type": "enabled"}})");
  EXPECT_EQ(answer["prompt"], "<｜begin▁of▁sentence｜><｜User｜>a<think><｜Assistant｜><think>");
}

TEST(Parsing, ASuffixFillsInTheMiddle) {
  Desk desk(says("x"));
  desk.json(kCompletions, R"({"prompt": "def f(", "suffix": "return x"})");
  EXPECT_EQ(demo_tokenizer().decode(desk.sink.requests().at(0).prompt, false),
            "<｜begin▁of▁sentence｜><｜fim▁begin｜>def f(<｜fim▁hole｜>return x<｜fim▁end｜>");
}

}  // namespace
}  // namespace fathom::api
