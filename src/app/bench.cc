#include <algorithm>
#include <cstdio>
#include <fstream>
#include <nlohmann/json.hpp>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "app/args.h"
#include "app/serving.h"
#include "app/step_ledger.h"
#include "base/alert.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/math.h"
#include "base/progress.h"
#include "base/random.h"
#include "base/thread_start.h"
#include "engine/ceilings.h"
#include "engine/plan.h"
#include "sched/scheduler.h"

// One batch at a time on the bare engine: no HTTP, no scheduler. The machine's read bandwidth (and its peak
// of multiply-adds) is probed directly before and after each repetition, on the same threads, because a
// shared host's bandwidth wanders; a figure is given as a share of the mean of its two probes, and medians
// are taken of those shares.
namespace fathom::app {
namespace {

struct Case {
  int32_t batch = 1, input = 0, output = 0;
};

struct Measured {
  double seconds = 0.0;
  double probe = 0.0;  // mean of before and after: GB/s for decode, GFLOP/s for prefill
};

double median(std::vector<double> values) {
  const auto middle = values.begin() + static_cast<ptrdiff_t>(values.size() / 2);
  std::nth_element(values.begin(), middle, values.end());
  return *middle;
}

// Drives the engine with plans of its own: `batch` sequences in slots 0.., each on its own run of pages.
class Driver {
 public:
  Driver(engine::Engine& engine, const Case& c, uint64_t seed)
      : engine_(engine),
        case_(c),
        pages_each_(ceil_div(places_of(c, engine.limits().max_drafts), engine.limits().page_size)) {
    prompts_.resize(static_cast<size_t>(c.batch));
    for (size_t b = 0; b < prompts_.size(); ++b) {
      for (int32_t i = 0; i < c.input; ++i) {
        prompts_[b].push_back(static_cast<int32_t>(random_bits(seed, b, static_cast<uint64_t>(i)) %
                                                   static_cast<uint64_t>(engine.limits().vocab_size)));
      }
    }
  }

  // All prompts, cut to the step's tokens; each ends with its first output token.
  double prefill() {
    const int64_t start_ns = steady_clock().now_ns();
    const int32_t budget = engine_.limits().max_step_tokens;
    BatchPlan plan;
    int32_t used = 0;
    std::vector<std::future<Result<StepResult>>> steps;
    for (int32_t b = 0; b < case_.batch; ++b) {
      plan.open.push_back({b, SlotInit{greedy(), {}, prompts_[static_cast<size_t>(b)], {}}, pages_of(b)});
      for (int32_t start = 0; start < case_.input;) {
        const int32_t count = std::min(case_.input - start, budget - used);
        BatchRow row;
        row.slot = b;
        row.mode = RowMode::kExtend;
        row.start = start;
        const auto from = prompts_[static_cast<size_t>(b)].begin() + start;
        row.tokens.assign(from, from + count);
        start += count;
        used += count;
        row.sample = start == case_.input;
        plan.rows.push_back(std::move(row));
        if (used == budget) {
          steps.push_back(submit(plan));
          used = 0;
        }
      }
    }
    if (!plan.rows.empty()) steps.push_back(submit(plan));
    for (auto& step : steps) (void)step.get().value();
    return seconds_since(start_ns);
  }

  // With speculation, until so many tokens have come on average.
  double decode() {
    if (engine_.limits().max_drafts > 0) return decode_guessing();
    const int64_t start_ns = steady_clock().now_ns();
    std::vector<std::future<Result<StepResult>>> steps;
    for (int32_t i = 0; i < case_.output; ++i) {
      BatchPlan plan = decode_plan(i);
      steps.push_back(submit(plan));
    }
    for (auto& step : steps) (void)step.get().value();
    tokens_ = int64_t{case_.batch} * case_.output;
    steps_ = case_.output;
    return seconds_since(start_ns);
  }

  int64_t tokens() const { return tokens_; }  // of the last decode(), and its steps
  int64_t steps() const { return steps_; }

  // Places that a sequence takes: some guess better than others, and go on longer.
  static int32_t places_of(const Case& c, int32_t drafts) {
    return c.input + c.output + 1 + (drafts > 0 ? c.output + 2 * drafts : 0);
  }

  // One step of each kind, op by op: as many prompt tokens as a step takes, and one output token a sequence.
  Result<std::vector<engine::OpTime>> trace_prefill() {
    BatchPlan plan;
    plan.step = ++step_;
    int32_t used = 0;
    for (int32_t b = 0; b < case_.batch && used < engine_.limits().max_step_tokens; ++b) {
      plan.open.push_back({b, SlotInit{greedy(), {}, prompts_[static_cast<size_t>(b)], {}}, pages_of(b)});
      BatchRow row;
      row.slot = b;
      row.mode = RowMode::kExtend;
      const auto& prompt = prompts_[static_cast<size_t>(b)];
      row.tokens.assign(prompt.begin(),
                        prompt.begin() + std::min(case_.input, engine_.limits().max_step_tokens - used));
      used += row.num_tokens();
      row.sample = true;
      plan.rows.push_back(std::move(row));
    }
    return engine_.trace_step(std::move(plan));
  }
  // With speculation after decode().
  Result<std::vector<engine::OpTime>> trace_decode() {
    BatchPlan plan = engine_.limits().max_drafts > 0 ? guessing_plan() : decode_plan(case_.output - 1);
    plan.step = ++step_;
    return engine_.trace_step(std::move(plan));
  }

 private:
  double decode_guessing() {
    const int64_t start_ns = steady_clock().now_ns();
    const int64_t wanted = int64_t{case_.batch} * case_.output;
    positions_.assign(static_cast<size_t>(case_.batch), case_.input);
    for (tokens_ = 0, steps_ = 0; tokens_ < wanted; ++steps_) {
      BatchPlan plan = guessing_plan();
      auto answer = submit(plan);
      wait_alert(answer, engine_.limits().alert);
      const StepResult result = answer.get().value();
      for (const RowResult& row : result.rows) {
        positions_[static_cast<size_t>(row.slot)] += static_cast<int32_t>(row.outputs.size());
        tokens_ += static_cast<int64_t>(row.outputs.size());
      }
    }
    return seconds_since(start_ns);
  }
  BatchPlan guessing_plan() const {
    BatchPlan plan;
    const int32_t drafts = engine_.limits().max_drafts;
    for (int32_t b = 0; b < case_.batch; ++b) {
      BatchRow row;
      row.slot = b;
      row.start = positions_[static_cast<size_t>(b)];
      row.sample = true;
      row.drafts = std::min(drafts, places_of(case_, drafts) - row.start - 1);
      if (row.drafts >= 0) plan.rows.push_back(std::move(row));
    }
    return plan;
  }
  BatchPlan decode_plan(int32_t index) const {
    BatchPlan plan;
    for (int32_t b = 0; b < case_.batch; ++b) {
      BatchRow row;
      row.slot = b;
      row.start = case_.input + index;
      row.sample = true;
      plan.rows.push_back(std::move(row));
    }
    return plan;
  }
  static SamplingParams greedy() {
    SamplingParams params;
    params.temperature = 0.0F;
    return params;
  }
  std::vector<int32_t> pages_of(int32_t sequence) const {
    std::vector<int32_t> pages;
    for (int32_t i = 0; i < pages_each_; ++i) pages.push_back(sequence * pages_each_ + i);
    return pages;
  }
  std::future<Result<StepResult>> submit(BatchPlan& plan) {
    plan.step = ++step_;
    auto future = engine_.step(std::move(plan));
    plan = {};
    return future;
  }

  engine::Engine& engine_;
  const Case case_;
  const int32_t pages_each_;
  std::vector<std::vector<int32_t>> prompts_;
  std::vector<int32_t> positions_;  // with speculation, of each sequence
  uint64_t step_ = 0;
  int64_t tokens_ = 0, steps_ = 0;
};

struct CaseReport {
  Case c;
  double prefill_rate = 0, prefill_gflops = 0, prefill_share = 0;  // tok/s, GFLOP/s, of the peak
  double decode_rate = 0, decode_gbs = 0, decode_share = 0;        // tok/s, GB/s, of the bandwidth
  double tokens_a_step = 1;                                        // of a sequence
  double idle_share = -1;          // of the GPU while it decodes; below 0: none
  double peak = 0, bandwidth = 0;  // medians of the probes
};

using Engines = std::span<const std::unique_ptr<engine::Engine>>;

// Seconds until all drivers are through with it.
double together(std::vector<Driver>& drivers, double (Driver::*part)()) {
  if (drivers.size() == 1) return (drivers.front().*part)();
  const int64_t start_ns = steady_clock().now_ns();
  std::vector<std::thread> threads;
  for (Driver& driver : drivers) {
    threads.emplace_back([&driver, part] {
      begin_thread("driver");
      (driver.*part)();
    });
  }
  for (auto& thread : threads) thread.join();
  return seconds_since(start_ns);
}

// With groups of requests, each has an equal share of the batch. The ceilings are of one of so many GPUs (1
// on the CPU, whose ranks share it).
CaseReport run_case(Engines engines, const engine::Plan& plan, const Case& c, int32_t repeat,
                    engine::Ceilings& ceilings, int gpus) {
  engine::Engine& engine = *engines.front();
  Case share = c;
  share.batch /= static_cast<int32_t>(engines.size());
  std::vector<double> prefill_rates, prefill_shares, decode_rates, decode_shares, peaks, bandwidths,
      idle_shares, step_tokens;
  const double flops = engine::prefill_flops(plan, c.input) * c.batch / gpus;
  const double bytes = engine::decode_bytes(plan, c.batch, c.input + (c.output + 1) / 2.0) / gpus;
  for (int32_t r = -1; r < repeat; ++r) {  // the first warms caches and scratch memory up
    std::vector<Driver> drivers;
    for (size_t e = 0; e < engines.size(); ++e)
      drivers.emplace_back(*engines[e], share, static_cast<uint64_t>(r + 1) + 1000 * e);
    const double peak_before = ceilings.compute_peak();
    const double prefill = together(drivers, &Driver::prefill);
    const double peak_after = ceilings.compute_peak();
    const double read_before = ceilings.read_bandwidth();
    const auto clock_before = engine.device_clock();
    const double decode = together(drivers, &Driver::decode);
    const auto clock_after = engine.device_clock();
    const double read_after = ceilings.read_bandwidth();
    if (r < 0) continue;
    if (clock_before && clock_after) {
      const double idle = clock_after->idle - clock_before->idle;
      idle_shares.push_back(idle / (idle + clock_after->busy - clock_before->busy));
    }
    const double peak = (peak_before + peak_after) / 2;
    const double read = (read_before + read_after) / 2;
    peaks.push_back(peak);
    bandwidths.push_back(read);
    prefill_rates.push_back(static_cast<double>(c.batch) * c.input / prefill);
    prefill_shares.push_back(flops * 1e-9 / prefill / peak);
    double tokens = 0;
    for (const Driver& driver : drivers) tokens += static_cast<double>(driver.tokens());
    decode_rates.push_back(tokens / decode);
    decode_shares.push_back(bytes * tokens / c.batch * 1e-9 / decode / read);
    step_tokens.push_back(tokens / c.batch / static_cast<double>(drivers.front().steps()));
  }
  CaseReport report;
  report.c = c;
  report.peak = median(peaks);
  report.bandwidth = median(bandwidths);
  report.prefill_rate = median(prefill_rates);
  report.prefill_gflops = report.prefill_rate * flops * 1e-9 / (static_cast<double>(c.batch) * c.input);
  report.prefill_share = median(prefill_shares);
  report.decode_rate = median(decode_rates);
  report.decode_gbs = report.decode_rate / c.batch * bytes * 1e-9;
  report.decode_share = median(decode_shares);
  report.tokens_a_step = median(step_tokens);
  if (!idle_shares.empty()) report.idle_share = median(idle_shares);
  return report;
}

struct Throughput {
  int32_t requests = 0;
  double seconds = 0;
  int64_t input_tokens = 0, output_tokens = 0;
  SchedulerStats stats;  // at the end

  double output_rate() const { return static_cast<double>(output_tokens) / seconds; }
};

// All requests at once through the scheduler: lengths are uniform between half and the whole of the given
// ones.
Result<Throughput> run_throughput(engine::Engine& engine, const ModelArgs& model, int32_t requests,
                                  int32_t input, int32_t output) {
  FATHOM_ASSIGN(const sched::SchedulerOptions options, scheduler_options(model, engine));
  sched::Scheduler scheduler(options, engine);
  scheduler.start();
  Progress progress("throughput", requests, "requests");
  Throughput result;
  result.requests = requests;
  const int64_t start_ns = steady_clock().now_ns();
  std::vector<std::shared_ptr<TokenStream>> streams;
  for (int32_t i = 0; i < requests; ++i) {
    const auto draw = [&](uint64_t stream, uint64_t counter, int64_t bound) {
      return static_cast<int32_t>(random_bits(static_cast<uint64_t>(i), stream, counter) %
                                  static_cast<uint64_t>(bound));
    };
    GenerateRequest request;
    request.id = std::to_string(i);
    const int32_t length = input - draw(0, 0, input / 2 + 1);
    for (int32_t t = 0; t < length; ++t) {
      request.prompt.push_back(draw(1, static_cast<uint64_t>(t), engine.limits().vocab_size));
    }
    request.sampling.temperature = 0.0F;
    request.sampling.max_new_tokens = output - draw(2, 0, output / 2 + 1);
    request.sampling.ignore_eos = true;
    result.input_tokens += length;
    FATHOM_ASSIGN(auto stream, scheduler.submit(std::move(request)));
    streams.push_back(std::move(stream));
  }
  for (auto& stream : streams) {
    for (bool running = true; running;) {
      const auto event = stream->next(std::chrono::seconds(1));
      if (!event) continue;
      result.output_tokens += static_cast<int64_t>(event->outputs.size());
      running = !event->finish;
      if (event->finish && event->finish->error) return *event->finish->error;
    }
    progress.add(1);
  }
  result.seconds = seconds_since(start_ns);
  result.stats = scheduler.stats();
  return result;
}

nlohmann::ordered_json to_json(const CaseReport& r) {
  return {{"batch", r.c.batch},
          {"input_len", r.c.input},
          {"output_len", r.c.output},
          {"prefill_tokens_per_second", r.prefill_rate},
          {"prefill_gflops", r.prefill_gflops},
          {"prefill_share_of_peak", r.prefill_share},
          {"peak_gflops", r.peak},
          {"decode_tokens_per_second", r.decode_rate},
          {"decode_gb_per_second", r.decode_gbs},
          {"decode_share_of_bandwidth", r.decode_share},
          {"bandwidth_gb_per_second", r.bandwidth},
          {"tokens_a_step", r.tokens_a_step},
          {"gpu_idle_share", r.idle_share}};
}

nlohmann::ordered_json to_json(const Throughput& t) {
  return {{"requests", t.requests},
          {"seconds", t.seconds},
          {"input_tokens", t.input_tokens},
          {"output_tokens", t.output_tokens}};
}

// Sizes the model's slots and pool for the runs where the flags leave it open; an error where they are too
// small for a run.
Result<void> size_for(const BenchArgs& args, const std::vector<Case>& cases, ModelArgs& model) {
  const int32_t page_size = model.page_size > 0 ? model.page_size : engine::kDefaultGpuPage;
  const int32_t largest = *std::max_element(args.batch.begin(), args.batch.end());
  int32_t running = largest;
  int64_t tokens = 0;
  const auto places = [&](int32_t input, int32_t output) {
    const int32_t drafts = model.speculative_algorithm.empty()
                               ? 0
                               : std::max({engine::kMostDrafts, model.speculative_num_draft_tokens,
                                           model.speculative_eagle_topk * model.speculative_num_steps});
    return round_up<int64_t>(Driver::places_of({1, input, output}, drafts), page_size);
  };
  for (const Case& c : cases) tokens = std::max(tokens, places(c.input, c.output) * c.batch);
  if (model.max_total_tokens > 0 && model.max_total_tokens < tokens) {
    return error(ErrorCode::kInvalidArgument, "--max-total-tokens {}: the largest batch needs {}",
                 model.max_total_tokens, tokens);
  }
  if (model.max_running_requests > 0 && model.max_running_requests < running) {
    return error(ErrorCode::kInvalidArgument, "--max-running-requests {}: the largest --batch is {}",
                 model.max_running_requests, running);
  }
  if (args.num_prompts > 0) {
    running = std::max(running, std::min(args.num_prompts, engine::kDefaultRunning));
    const int32_t at_once = model.max_running_requests > 0 ? model.max_running_requests : running;
    tokens = std::max(tokens, places(args.input_len[0], args.output_len[0]) * at_once);
  }
  if (model.max_running_requests == 0) model.max_running_requests = running;
  if (model.max_total_tokens == 0) model.max_total_tokens = tokens;
  return {};
}

// Where the time of one step of each kind goes (--step-ledger).
Result<void> print_ledgers(engine::Engine& engine, const engine::Plan& plan, const CaseReport& report,
                           const std::string& trace_file) {
  const Case& c = report.c;
  Driver driver(engine, c, 0);
  driver.prefill();
  driver.decode();
  FATHOM_ASSIGN(const auto decode, driver.trace_decode());
  print_ledger(fmt::format("decode step, {} sequences at {} tokens", c.batch, c.input + c.output), decode);
  std::printf("  %.1f launches a layer; a replayed step takes %.0f us\n",
              static_cast<double>(decode.size()) / static_cast<double>(plan.config.num_layers),
              1e6 * c.batch * report.tokens_a_step / report.decode_rate);
  print_floors(plan, c.batch, c.input + c.output, report.bandwidth);
  FATHOM_ASSIGN(const auto prefill, driver.trace_prefill());
  print_ledger(fmt::format("prefill step, {} x {} tokens", c.batch, c.input), prefill);
  if (trace_file.empty()) return {};
  return write_chrome_trace(trace_file, {{"decode", decode}, {"prefill", prefill}});
}

// What one engine was measured to do.
struct Run {
  std::vector<CaseReport> cases;
  std::optional<Throughput> throughput;
};

Result<Run> run_engine(const BenchArgs& args, const ModelArgs& model, const std::vector<Case>& cases) {
  auto settings = engine_settings(model);
  if (!model.speculative_algorithm.empty())
    settings.speculation.simulated_acceptance = args.simulate_acceptance;
  FATHOM_ASSIGN(const auto plan, engine::plan(settings));
  for (const auto& c : cases) {
    if (c.input + c.output + 1 > plan.facts.context_length) {
      return error(ErrorCode::kInvalidArgument, "--input-len {} and --output-len {}: the context holds {}",
                   c.input, c.output, plan.facts.context_length);
    }
  }
  engine::ModelFacts facts;
  FATHOM_ASSIGN(const auto options, engine::resolve(settings, &facts));
  FATHOM_ASSIGN(const auto engines, engine::start_engines(settings, &facts));
  const auto groups = static_cast<int32_t>(engines.size());
  for (const auto& c : cases) {
    if (c.batch % groups == 0) continue;
    return error(ErrorCode::kInvalidArgument, "--batch {}: {} groups have no equal shares of it", c.batch,
                 groups);
  }
  if (groups > 1 && (args.step_ledger || args.num_prompts > 0)) {
    return error(ErrorCode::kInvalidArgument,
                 "--step-ledger, --num-prompts: of one group of requests; leave them or --dp out");
  }
  engine::Engine& engine = *engines.front();
  FATHOM_ASSIGN(const auto ceilings, engine::make_ceilings(options, engine));

  std::printf("%5s %6s %6s | %10s %9s %14s | %10s %8s %16s\n", "batch", "input", "output", "prefill",
              "GFLOP/s", "share of peak", "decode", "GB/s", "share of read bw");
  const int gpus = options.cuda ? options.split.world() : 1;
  if (gpus > 1) std::printf("%d GPUs: GFLOP/s and GB/s are the whole model's over their number\n", gpus);
  Run run;
  for (const auto& c : cases) {
    const CaseReport r = run_case(engines, plan, c, args.repeat, *ceilings, gpus);
    std::printf("%5d %6d %6d | %6.1f t/s %9.1f %4.0f %% of %5.0f | %6.1f t/s %8.2f %4.0f %% of %5.1f GB/s\n",
                c.batch, c.input, c.output, r.prefill_rate, r.prefill_gflops, r.prefill_share * 100, r.peak,
                r.decode_rate, r.decode_gbs, r.decode_share * 100, r.bandwidth);
    if (engine.limits().max_drafts > 0)
      std::printf("%20s %.2f tokens of a sequence a step\n", "", r.tokens_a_step);
    if (r.idle_share >= 0)
      std::printf("%20s the GPU waits %.1f %% of the time between decode steps\n", "", r.idle_share * 100);
    std::fflush(stdout);
    if (args.step_ledger) FATHOM_TRY(print_ledgers(engine, plan, r, args.ledger_trace));
    run.cases.push_back(r);
  }
  if (args.num_prompts == 0) return run;
  FATHOM_ASSIGN(run.throughput,
                run_throughput(engine, model, args.num_prompts, args.input_len[0], args.output_len[0]));
  const Throughput& t = *run.throughput;
  std::printf("throughput: %d requests in %.2f s: %.1f input tok/s, %.1f output tok/s (%lld in, %lld out)\n",
              t.requests, t.seconds, static_cast<double>(t.input_tokens) / t.seconds, t.output_rate(),
              static_cast<long long>(t.input_tokens), static_cast<long long>(t.output_tokens));
  if (t.stats.speculates) {
    std::printf("%12s %.2f tokens of a sequence where it guessed; %lld steps without guesses\n", "",
                t.stats.speculation.accept_length(), static_cast<long long>(t.stats.unguessed_steps));
  }
  return run;
}

ModelArgs without_speculation(ModelArgs model) {
  const ModelArgs defaults;
  model.speculative_algorithm = defaults.speculative_algorithm;
  model.speculative_num_steps = defaults.speculative_num_steps;
  model.speculative_eagle_topk = defaults.speculative_eagle_topk;
  model.speculative_num_draft_tokens = defaults.speculative_num_draft_tokens;
  model.speculative_draft_vocab = defaults.speculative_draft_vocab;
  model.speculative_draft_model_path = defaults.speculative_draft_model_path;
  return model;
}

// What guesses gain: every batch guesses in every step; the throughput run as the scheduler decides.
nlohmann::ordered_json compare(const Run& without, const Run& with) {
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  std::printf("\nspeculation, output tok/s of all sequences:\n%6s %6s %6s | %10s %10s %6s | %s\n", "batch",
              "input", "output", "without", "with", "times", "tokens of a sequence a step");
  for (size_t i = 0; i < with.cases.size(); ++i) {
    const CaseReport& r = with.cases[i];
    const double before = without.cases[i].decode_rate;
    const double times = r.decode_rate / before;
    std::printf("%6d %6d %6d | %10.1f %10.1f %6.2f | %.2f\n", r.c.batch, r.c.input, r.c.output, before,
                r.decode_rate, times, r.tokens_a_step);
    results.push_back({{"batch", r.c.batch},
                       {"input_len", r.c.input},
                       {"output_len", r.c.output},
                       {"tokens_per_second_without", before},
                       {"tokens_per_second_with", r.decode_rate},
                       {"times", times},
                       {"tokens_a_step", r.tokens_a_step}});
  }
  if (!with.throughput) return results;
  const Throughput& t = *with.throughput;
  const double before = without.throughput->output_rate();
  std::printf("%4d requests, scheduled | %10.1f %10.1f %6.2f | %.2f where it guessed; %lld steps did not\n",
              t.requests, before, t.output_rate(), t.output_rate() / before,
              t.stats.speculation.accept_length(), static_cast<long long>(t.stats.unguessed_steps));
  results.push_back({{"requests", t.requests},
                     {"tokens_per_second_without", before},
                     {"tokens_per_second_with", t.output_rate()},
                     {"times", t.output_rate() / before},
                     {"tokens_a_step", t.stats.speculation.accept_length()},
                     {"unguessed_steps", t.stats.unguessed_steps}});
  return results;
}

int fail(const Error& failure) {
  std::fprintf(stderr, "fathom bench: %s\n", failure.message.c_str());
  return 1;
}

}  // namespace

int run_bench(const BenchArgs& args) {
  std::vector<Case> cases;
  for (const int32_t batch : args.batch) {
    for (const int32_t input : args.input_len) {
      for (const int32_t output : args.output_len) cases.push_back({batch, input, output});
    }
  }
  ModelArgs model = args.model;
  if (const auto fits = size_for(args, cases, model); !fits.ok()) return fail(fits.error());
  nlohmann::ordered_json results = nlohmann::ordered_json::array();
  if (args.compare_speculation) {
    const auto without = run_engine(args, without_speculation(model), cases);
    if (!without.ok()) return fail(without.error());
    const auto with = run_engine(args, model, cases);
    if (!with.ok()) return fail(with.error());
    results = compare(*without, *with);
  } else {
    const auto run = run_engine(args, model, cases);
    if (!run.ok()) return fail(run.error());
    for (const CaseReport& report : run->cases) results.push_back(to_json(report));
    if (run->throughput) results.push_back(to_json(*run->throughput));
  }
  if (!args.result_file.empty()) {
    std::ofstream file(args.result_file);
    file << results.dump(1) << '\n';
    if (!file) return fail(error(ErrorCode::kNotFound, "cannot write {}", args.result_file));
  }
  return 0;
}

}  // namespace fathom::app
