// Speed of the tokenizer on one thread, and a pipe through which tests/tokenizer_judge.py asks it for
// answers.
//
// "speed" encodes each file in chunks of 4 KiB and of 64 KiB and prints MB/s. "pipe" reads lines: a JSON
// string is answered by its ids, an array of ids by [text, text without special tokens].
#include <fmt/format.h>
#include <time.h>

#include <algorithm>
#include <charconv>
#include <fstream>
#include <iostream>
#include <iterator>
#include <nlohmann/json.hpp>

#include "text/tokenizer/tokenizer.h"

namespace {

using fathom::text::Tokenizer;

// CPU time, so that other work on the machine disturbs the measurement little.
double thread_seconds() {
  timespec time;
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
  return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec) * 1e-9;
}

// Cut at the last line break before `size`, so that words stay whole, as the peer's benchmark does.
std::vector<std::string_view> cut(std::string_view text, size_t size) {
  std::vector<std::string_view> chunks;
  while (!text.empty()) {
    size_t length = std::min(size, text.size());
    const size_t line_break = text.substr(0, length).rfind('\n');
    if (length < text.size() && line_break != std::string_view::npos) length = line_break + 1;
    chunks.push_back(text.substr(0, length));
    text.remove_prefix(length);
  }
  return chunks;
}

int measure_speed(const Tokenizer& tokenizer, int repetitions, const std::vector<std::string>& paths) {
  for (const auto& path : paths) {
    std::ifstream file(path, std::ios::binary);
    const std::string text((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    if (text.empty()) {
      fmt::print(stderr, "cannot read {}\n", path);
      return 1;
    }
    for (const size_t size : {size_t{4} << 10, size_t{64} << 10}) {
      const auto chunks = cut(text, size);
      std::vector<double> speeds;
      size_t tokens = 0;
      for (int repetition = 0; repetition < repetitions; ++repetition) {
        tokens = 0;
        const double start = thread_seconds();
        for (const auto chunk : chunks) tokens += tokenizer.encode(chunk, false).size();
        speeds.push_back(static_cast<double>(text.size()) / 1e6 / (thread_seconds() - start));
      }
      std::sort(speeds.begin(), speeds.end());
      fmt::print("{} bytes={} tokens={} chunk={}KiB MB/s min={:.2f} median={:.2f} max={:.2f}\n", path,
                 text.size(), tokens, size >> 10, speeds.front(), speeds[speeds.size() / 2], speeds.back());
    }
  }
  return 0;
}

int answer(const Tokenizer& tokenizer) {
  for (std::string line; std::getline(std::cin, line);) {
    const auto json = nlohmann::json::parse(line, nullptr, false);
    if (json.is_string()) {
      std::cout << nlohmann::json(tokenizer.encode(json.get_ref<const std::string&>(), false)).dump() << '\n';
    } else if (json.is_array()) {
      const auto ids = json.get<std::vector<int32_t>>();
      std::cout << nlohmann::json({tokenizer.decode(ids, false), tokenizer.decode(ids, true)}).dump() << '\n';
    } else {
      fmt::print(stderr, "a line must be a JSON string or an array of ids\n");
      return 1;
    }
  }
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  const std::vector<std::string> args(argv + 1, argv + argc);
  int repetitions = 0;
  const bool speed =
      args.size() >= 4 && args[0] == "speed" &&
      std::from_chars(args[2].data(), args[2].data() + args[2].size(), repetitions).ec == std::errc() &&
      repetitions > 0;
  if (!speed && !(args.size() == 2 && args[0] == "pipe")) {
    fmt::print(stderr, "usage: text_tokenize_bench speed MODEL_DIR REPETITIONS FILE... | pipe MODEL_DIR\n");
    return 2;
  }
  const auto tokenizer = Tokenizer::load(args[1]);
  if (!tokenizer.ok()) {
    fmt::print(stderr, "{}\n", tokenizer.error().message);
    return 1;
  }
  if (!speed) return answer(**tokenizer);
  return measure_speed(**tokenizer, repetitions, {args.begin() + 3, args.end()});
}
