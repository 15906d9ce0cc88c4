// Renders templates from standard input, one JSON object {"template", "variables"} a line, and answers each
// with
// {"output"} or {"error"}: how tests/template_judge.py compares Fathom with jinja2. With an argument N,
// renders each N times and adds "microseconds", of the fastest.
#include <chrono>
#include <cstdlib>
#include <iostream>
#include <map>
#include <nlohmann/json.hpp>

#include "text/template/chat_template.h"

using fathom::text::ChatTemplate;

int main(int argc, char** argv) {
  const int repeats = argc > 1 ? std::atoi(argv[1]) : 1;
  std::map<std::string, fathom::Result<ChatTemplate>> parsed;
  for (std::string line; std::getline(std::cin, line);) {
    const auto request = nlohmann::ordered_json::parse(line);
    const std::string source = request["template"];
    auto it = parsed.find(source);
    if (it == parsed.end()) it = parsed.emplace(source, ChatTemplate::parse(source)).first;
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
