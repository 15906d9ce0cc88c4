// Any bytes as a template over a small conversation: it parses or not, renders or not, within its limits.
#include <cstdint>
#include <nlohmann/json.hpp>

#include "text/template/chat_template.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  static const auto variables = nlohmann::ordered_json::parse(R"({
    "messages": [{"role": "user", "content": "Héllo 'x' 日本"}, {"role": "tool", "content": null, "n": [1, 2.5, "a"]}],
    "s": " some Text\n", "n": 3, "f": 0.25, "d": {"a": 1, "b": [true, null]}, "bos_token": "<s>"})");
  const auto parsed =
      fathom::text::ChatTemplate::parse(std::string(reinterpret_cast<const char*>(data), size));
  if (!parsed.ok()) return 0;
  const fathom::text::RenderLimits limits{
      .max_steps = 20'000, .max_output_bytes = 1 << 16, .max_memory_bytes = 1 << 20, .max_depth = 300};
  (void)parsed->render(variables, limits).ok();
  return 0;
}
