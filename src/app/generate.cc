#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string_view>
#include <thread>
#include <vector>

#include "app/args.h"
#include "app/local_exchange.h"
#include "app/serving.h"
#include "base/log.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/thread_start.h"

// A line of the input is either OpenAI's batch form, {"custom_id", "method", "url", "body"}, or a bare
// request body: with "messages" for chat, "prompt" for completions, "text" or "input_ids" for /generate. Each
// answer is one line, in the order of the input: {"custom_id" or "line", "response": {"status_code",
// "body"}}. Answers are whole: "stream" is not looked at.
namespace fathom::app {
namespace {

using Json = nlohmann::ordered_json;

constexpr std::array<std::string_view, 3> kUrls = {"/v1/chat/completions", "/v1/completions", "/generate"};

struct Job {
  Json id;
  bool has_id = false;
  std::string path, body;
  std::string failure;  // why the line is no request
};

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

Job parse_line(const std::string& line, size_t number) {
  Job job;
  job.id = number;
  Json json = Json::parse(line, nullptr, false);
  if (!json.is_object()) {
    job.failure = "line " + std::to_string(number) + ": expected a JSON object";
    return job;
  }
  if (json.contains("custom_id")) {
    job.id = json["custom_id"];
    job.has_id = true;
    json.erase("custom_id");
  }
  if (json.contains("body")) {
    const Json url = json.value("url", Json());
    if (!url.is_string() ||
        std::find(kUrls.begin(), kUrls.end(), url.get_ref<const std::string&>()) == kUrls.end()) {
      job.failure = fmt::format("\"url\": expected one of {}, got {}", fmt::join(kUrls, ", "), dump(url));
      return job;
    }
    if (json.value("method", Json("POST")) != "POST") {
      job.failure = fmt::format("\"method\": expected \"POST\", got {}", dump(json["method"]));
      return job;
    }
    job.path = url.get<std::string>();
    Json body = json["body"];
    if (body.is_object()) body.erase("stream");
    job.body = dump(body);
    return job;
  }
  if (json.contains("messages"))
    job.path = "/v1/chat/completions";
  else if (json.contains("prompt"))
    job.path = "/v1/completions";
  else if (json.contains("text") || json.contains("input_ids"))
    job.path = "/generate";
  else
    job.failure = "expected one of \"messages\", \"prompt\", \"text\" and \"input_ids\"";
  json.erase("stream");
  job.body = dump(json);
  return job;
}

std::string answer_line(const Job& job, const LocalAnswer& answer) {
  Json line;
  line[job.has_id ? "custom_id" : "line"] = job.id;
  line["response"]["status_code"] = answer.status;
  const Json body = Json::parse(answer.body, nullptr, false);
  line["response"]["body"] = body.is_discarded() ? Json(answer.body) : body;
  return dump(line);
}

// Writes answers in the order of their jobs, as soon as all before them are there.
class OrderedOutput {
 public:
  OrderedOutput(std::ostream& out, size_t count) : out_(out), lines_(count), done_(count, false) {}
  // All that was put has been taken by the file.
  bool written() const { return next_ == done_.size() && out_.good(); }
  void put(size_t index, std::string line) {
    std::lock_guard lock(mutex_);
    lines_[index] = std::move(line);
    done_[index] = true;
    while (next_ < done_.size() && done_[next_]) {
      out_ << lines_[next_] << '\n';
      lines_[next_++].clear();
    }
    out_.flush();
  }

 private:
  std::mutex mutex_;
  std::ostream& out_;
  std::vector<std::string> lines_;
  std::vector<bool> done_;
  size_t next_ = 0;
};

// The request that this thread runs, and how many of its choices have a seed.
struct SeedPlace {
  uint64_t line = 0, choice = 0;
};
thread_local SeedPlace seed_place;

int fail(const std::string& message) {
  std::fprintf(stderr, "fathom generate: %s\n", message.c_str());
  return 1;
}

}  // namespace

int run_generate(const GenerateArgs& args) {
  std::ifstream input_file;
  std::ofstream output_file;
  if (args.input != "-") {
    input_file.open(args.input);
    if (!input_file) return fail("cannot read " + args.input);
  }
  if (args.output != "-") {
    output_file.open(args.output);
    if (!output_file) return fail("cannot write " + args.output);
  }
  std::istream& input = args.input == "-" ? std::cin : input_file;
  std::vector<Job> jobs;
  std::string line;
  for (size_t number = 1; std::getline(input, line); ++number) {
    if (line.find_first_not_of(" \t\r") != std::string::npos) jobs.push_back(parse_line(line, number));
  }

  api::ServiceOptions options;
  if (const auto seed = args.model.random_seed) {
    // By the place in the file: the callers' threads come in any order.
    options.next_seed = [seed = *seed] { return random_bits(seed, seed_place.line, seed_place.choice++); };
  }
  auto serving = Serving::start(args.model, {}, std::move(options));
  if (!serving.ok()) return fail(serving.error().message);
  (*serving)->service().set_ready();

  OrderedOutput output(args.output == "-" ? std::cout : output_file, jobs.size());
  std::atomic<size_t> next{0};
  std::atomic<size_t> failed{0};
  {
    Progress progress("generate", static_cast<double>(jobs.size()), "requests");
    // Enough callers to keep every slot busy; the scheduler batches them.
    const size_t callers = std::min(jobs.size(), static_cast<size_t>((*serving)->max_running_requests()) * 2);
    std::vector<std::thread> threads;
    for (size_t i = 0; i < callers; ++i) {
      threads.emplace_back([&] {
        begin_thread("caller");
        for (size_t index = next++; index < jobs.size(); index = next++) {
          const Job& job = jobs[index];
          seed_place = {index, 0};
          LocalAnswer answer;
          if (job.failure.empty()) {
            answer = post((*serving)->service(), job.path, job.body);
          } else {
            answer = {400,
                      Json{{"error", {{"message", job.failure}, {"type", "invalid_request_error"}}}}.dump()};
          }
          if (answer.status != 200) ++failed;
          output.put(index, answer_line(job, answer));
          progress.add(1);
        }
      });
    }
    for (auto& thread : threads) thread.join();
  }
  if (!output.written()) return fail("cannot write all answers to " + args.output);
  if (failed > 0) LOG_WARNING("{} of {} requests failed; their lines say why", failed.load(), jobs.size());
  return failed > 0 ? 1 : 0;
}

}  // namespace fathom::app
