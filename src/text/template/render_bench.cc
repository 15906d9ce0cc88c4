// Renders templates from standard input, one JSON object {"template", "variables"} a line, and answers each
// with {"output"} or {"error"}: how tests/template_judge.py compares Fathom with jinja2. {"encoding", ...}
// names one of DeepSeek's encodings instead of a template (tests/encoding_judge.py). With an argument N,
// renders each N times and adds "microseconds", of the fastest.
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "text/template/chat_template.h"

using fathom::text::ChatTemplate;

namespace {

fathom::Result<ChatTemplate> template_of(const nlohmann::ordered_json& request) {
  if (!request.contains("encoding")) return ChatTemplate::parse(request["template"].get<std::string>());
  const auto encoding = fathom::text::parse_prompt_encoding(request["encoding"].get<std::string>());
  if (!encoding) return fathom::error(fathom::ErrorCode::kInvalidArgument, "no such encoding");
  return ChatTemplate(*encoding);
}

}  // namespace

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::atoi(argv[1]) : 1;
  std::map<std::string, fathom::Result<ChatTemplate>> parsed;
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = nlohmann::ordered_json::parse(line);
    const std::string source = request.value("encoding", "") + '\n' + request.value("template", "");
    auto it = parsed.find(source);
    if (it == parsed.end()) it = parsed.emplace(source, template_of(request)).first;
    nlohmann::ordered_json answer;
    if (!it->second.ok()) {
      answer["error"] = it->second.error().message;
    } else {
      double fastest = 1e300;
      for (int i = 0; i < repeats; ++i) {
        const auto start = std::chrono::steady_clock::now();
        const auto rendered = it->second->render(request["variables"]);
        const std::chrono::duration<double, std::micro> took = std::chrono::steady_clock::now() - start;
        fastest = std::min(fastest, took.count());
        if (rendered.ok()) {
          answer["output"] = *rendered;
        } else {
          answer["error"] = rendered.error().message;
        }
      }
      if (argc > 1) answer["microseconds"] = fastest;
    }
    std::cout << answer.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) << '\n';
  }
}
