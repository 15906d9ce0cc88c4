// What --prefill-step-ratio does to throughput, to the time between tokens and to that of the first, on
// machines whose steps take as long as a rule says (with noise), so that no other program disturbs the
// figures:
//   sched_prompt_share_bench [seconds of the machine's time]
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <random>
#include <vector>

#include "base/log.h"
#include "sched/fake_executor.h"
#include "sched/manual_clock.h"
#include "sched/scheduler_core.h"

namespace fathom::sched {
namespace {

// ms of a step: in all, of a row of outputs, a prompt token, and a look at what is before it
// (sched/prompt_budget.h).
struct Machine {
  double step, output, prompt, look;
  int32_t pairs;
};

struct Load {
  const char* name;
  Machine machine;
  int clients;
  bool long_prompts;  // 500 to 1500 tokens, never seen before, and 100 of output; else as tests/load_test.py
};

// The demo model on one thread of Zen 3, as fitted to its steps, un-absorbed and as it is; and a GPU with
// many long prompts.
constexpr Load kLoads[] = {{"demo model, un-absorbed prompts", {6.0, 0.55, 0.35, 0.11, 0}, 100, false},
                           {"demo model, one thread", {6.0, 0.55, 0.35, 0.00065, 170}, 100, false},
                           {"demo model, 500 clients", {6.0, 0.55, 0.35, 0.00065, 170}, 500, false},
                           {"demo model, long prompts", {6.0, 0.55, 0.35, 0.00065, 170}, 64, true},
                           {"GPU, long prompts", {8.0, 0.02, 0.012, 0.0003, 0}, 64, true}};

class Simulation {
 public:
  Simulation(const Load& load, double ratio)
      : load_(load),
        limits_(make_limits(load)),
        executor_(limits_),
        core_(make_options(ratio), limits_, clock_) {
    for (int i = 0; i < 160; ++i) questions_.push_back(tokens(18 + below(20)));
    for (int i = 0; i < 40; ++i) {
      constexpr int kFacts[] = {3, 8, 20, 45, 90};
      questions_.push_back(tokens(20 + 10 * kFacts[below(5)]));
    }
    clients_.resize(static_cast<size_t>(load.clients));
    for (Client& client : clients_) ask(client);
  }

  void run(double seconds) {
    while (clock_.ns < static_cast<int64_t>(seconds * 1e9)) {
      auto plan = core_.plan();
      FATHOM_CHECK(plan.has_value(), "clients ask all the time");
      clock_.ns += static_cast<int64_t>(time_of(*plan) * 1e6);
      executor_.submit(std::move(*plan));
      core_.account(executor_.complete());
      for (Client& client : clients_) read(client);
    }
  }

  void report(double ratio) {
    std::ranges::sort(gaps_);
    std::ranges::sort(first_);
    const auto share = [](const std::vector<double>& values, double part) {
      return values.empty() ? 0.0
                            : values[static_cast<size_t>(part * static_cast<double>(values.size() - 1))];
    };
    const double median = share(gaps_, 0.5), p99 = share(gaps_, 0.99);
    fmt::print(
        "{:<32} ratio {:<4} {:>5.0f} tok/s; between tokens {:>5.1f} / {:>5.1f} ms, {:.2f} times; first token "
        "{:>5.2f} / {:>5.2f} s\n",
        load_.name, ratio,
        static_cast<double>(gaps_.size() + first_.size()) / (static_cast<double>(clock_.ns) * 1e-9), median,
        p99, p99 / median, share(first_, 0.5), share(first_, 0.99));
  }

 private:
  struct Client {
    std::shared_ptr<TokenStream> stream;
    int64_t began = 0, last = 0;
  };

  static ExecutorLimits make_limits(const Load& load) {
    return {.max_slots = 64,
            .num_pages = load.long_prompts ? 8000 : 2048,
            .page_size = 16,
            .max_context = 4096,
            .vocab_size = 3000,
            .max_step_tokens = 512 + 64,
            .prompt_pairs = load.machine.pairs};
  }
  static SchedulerOptions make_options(double ratio) {
    SchedulerOptions options;
    options.prefill_step_ratio = ratio;
    options.chunked_prefill_size = 512;
    options.disable_overlap_schedule = true;
    return options;
  }

  int32_t below(uint32_t end) { return static_cast<int32_t>(random_() % end); }
  std::vector<int32_t> tokens(int32_t count) {
    std::vector<int32_t> made(static_cast<size_t>(count));
    for (int32_t& token : made) token = below(3000);
    return made;
  }

  void ask(Client& client) {
    GenerateRequest request;
    request.id = std::to_string(next_id_++);
    request.sampling.max_new_tokens = 100;
    if (load_.long_prompts) {
      request.prompt = tokens(500 + below(1000));
    } else {
      if (below(2) == 0) {  // a story, with a number
        request.prompt.assign(questions_[0].begin(), questions_[0].begin() + 17);
        for (const int32_t token : tokens(4)) request.prompt.push_back(token);
      } else {
        request.prompt = questions_[static_cast<size_t>(below(10) < 8 ? below(160) : 160 + below(40))];
      }
      constexpr int32_t kMost[] = {16, 64, 128, 256};
      const int32_t most = kMost[below(4)];
      request.sampling.max_new_tokens = below(10) < 3 ? most : std::min(most, 10 + below(60));
    }
    client = {std::make_shared<TokenStream>(), clock_.ns, 0};
    core_.add(request, client.stream);
  }

  // ms; noise of 10 %, and now and then another program.
  double time_of(const BatchPlan& plan) {
    const Machine& machine = load_.machine;
    double ms = machine.step;
    for (const BatchRow& row : plan.rows) {
      const int32_t count = row.num_tokens();
      const int32_t lookers = machine.pairs > 0 ? std::min(count, machine.pairs) : 1;
      ms += row.mode == RowMode::kDecode ? machine.output
                                         : machine.prompt * count + machine.look * row.start * lookers;
    }
    return ms * std::exp(0.1 * normal_(random_)) * (below(200) == 0 ? 3.0 : 1.0);
  }

  void read(Client& client) {
    bool ended = false;
    while (auto event = client.stream->next(std::chrono::milliseconds(0))) {
      if (!event->outputs.empty()) {
        if (client.last > 0) {
          gaps_.push_back(static_cast<double>(clock_.ns - client.last) * 1e-6);
        } else {
          first_.push_back(static_cast<double>(clock_.ns - client.began) * 1e-9);
        }
        client.last = clock_.ns;
      }
      ended = ended || event->finish.has_value();
    }
    if (ended) ask(client);
  }

  const Load& load_;
  ManualClock clock_;
  ExecutorLimits limits_;
  FakeExecutor executor_;
  SchedulerCore core_;
  std::mt19937 random_{7};
  std::normal_distribution<double> normal_;
  std::vector<std::vector<int32_t>> questions_;
  std::vector<Client> clients_;
  std::vector<double> gaps_, first_;  // ms, s
  int next_id_ = 0;
};

}  // namespace
}  // namespace fathom::sched

int main(int argc, char** argv) {
  fathom::set_log_level(fathom::LogLevel::kError);  // preemptions are no news here
  const double seconds = argc > 1 ? std::atof(argv[1]) : 120.0;
  for (const auto& load : fathom::sched::kLoads) {
    for (const double ratio : {0.0, 1.5, 2.0}) {
      fathom::sched::Simulation simulation(load, ratio);
      simulation.run(seconds);
      simulation.report(ratio);
    }
  }
}
