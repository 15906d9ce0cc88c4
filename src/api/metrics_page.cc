// GET /metrics: the reference system's names and types, vLLM's by request, and some of our own.
#include <iterator>

#include "api/endpoints.h"
#include "api/metrics.h"
#include "base/process.h"

namespace fathom::api {
namespace {

using Labels = PrometheusText::Labels;

double ratio(int64_t part, int64_t whole) {
  return whole == 0 ? 0.0 : static_cast<double>(part) / static_cast<double>(whole);
}

Labels with(Labels labels, const char* name, std::string value) {
  labels.emplace_back(name, std::move(value));
  return labels;
}

int64_t requests_ended(const ServiceMetrics& metrics) {
  int64_t sum = 0;
  for (const Counter& counter : metrics.outcomes) sum += counter.value();
  return sum;
}

int64_t requests_aborted(const ServiceMetrics& metrics) {
  int64_t sum = 0;
  for (const Outcome outcome : {Outcome::kAborted, Outcome::kFailed, Outcome::kDisconnected}) {
    sum += metrics.outcomes[static_cast<size_t>(outcome)].value();
  }
  return sum;
}

void write_histogram(PrometheusText& page, const char* name, const char* help, const Labels& labels,
                     const Histogram& histogram) {
  page.family(name, "histogram", help);
  page.histogram(labels, histogram);
}

// What the reference system shows of each data-parallel rank.
void write_sglang_schedulers(PrometheusText& page, const Labels& request,
                             const std::vector<SchedulerStats>& groups) {
  const auto gauge = [&](const char* name, const char* help, const auto& value_of) {
    page.family(name, "gauge", help);
    for (size_t rank = 0; rank < groups.size(); ++rank) {
      Labels labels = request;
      labels.insert(labels.end(), {{"tp_rank", "0"}, {"pp_rank", "0"}, {"dp_rank", std::to_string(rank)}});
      page.sample(labels, value_of(groups[rank]));
    }
  };
  using Stats = const SchedulerStats&;
  gauge("sglang:num_running_reqs", "Requests that run.", [](Stats s) { return s.running_requests; });
  gauge("sglang:num_queue_reqs", "Requests that wait.", [](Stats s) { return s.waiting_requests; });
  gauge("sglang:num_used_tokens", "Token places of the KV pool that live requests hold.",
        [](Stats s) { return s.used_tokens; });
  gauge("sglang:max_total_num_tokens", "Token places of the KV pool.",
        [](Stats s) { return s.total_tokens; });
  gauge("sglang:token_usage", "Share of the KV pool that live requests hold.",
        [](Stats s) { return ratio(s.used_tokens, s.total_tokens); });
  gauge("sglang:gen_throughput", "Output tokens a second, over the last seconds.",
        [](Stats s) { return s.generation_rate; });
  gauge("sglang:cache_hit_rate", "Share of all prompt tokens that came from the prefix cache.",
        [](Stats s) { return ratio(s.prompt_cached_tokens, s.prompt_tokens); });
  gauge("sglang:num_retracted_reqs", "Preempted requests that wait to go on.",
        [](Stats s) { return s.preempted_requests; });
  gauge("sglang:spec_accept_length", "Tokens that a decode step gave, guesses included; 0 without guessing.",
        [](Stats s) { return s.speculation.accept_length(); });
  gauge("sglang:spec_accept_rate", "Share of the guessed tokens that were right.",
        [](Stats s) { return s.speculation.accept_rate(); });
}

void write_sglang(PrometheusText& page, const std::string& model, const std::vector<SchedulerStats>& groups,
                  const SchedulerStats& stats, const ServiceMetrics& metrics) {
  const Labels request = {{"model_name", model}, {"engine_type", "unified"}};
  write_sglang_schedulers(page, request, groups);
  const auto counter = [&](const char* name, const char* help, int64_t value) {
    page.single(name, "counter", help, request, value);
  };
  counter("sglang:prompt_tokens_total", "Prompt tokens computed or found in the prefix cache.",
          stats.prompt_tokens);
  counter("sglang:cached_tokens_total", "Prompt tokens found in the prefix cache.",
          stats.prompt_cached_tokens);
  counter("sglang:generation_tokens_total", "Output tokens.", stats.generated_tokens);
  counter("sglang:evicted_tokens_total", "Token places taken from the prefix cache for new tokens.",
          stats.evicted_tokens);
  counter("sglang:num_requests_total", "Requests ended, however they ended; each choice counts.",
          requests_ended(metrics));
  counter("sglang:num_aborted_requests_total", "Requests ended by their client, an operator or an error.",
          requests_aborted(metrics));
  const auto histogram = [&](const char* name, const char* help, const Histogram& values) {
    write_histogram(page, name, help, request, values);
  };
  histogram("sglang:time_to_first_token_seconds", "From a request's arrival to its first token.",
            metrics.first_token_seconds);
  histogram("sglang:inter_token_latency_seconds", "Between two tokens of a request.",
            metrics.between_tokens_seconds);
  histogram("sglang:e2e_request_latency_seconds", "From a request's arrival to its end.",
            metrics.request_seconds);
  histogram("sglang:queue_time_seconds", "From a request's arrival to its admission.", metrics.queue_seconds);
  histogram("sglang:prompt_tokens_histogram", "Prompt tokens of a request.", metrics.prompt_tokens);
  histogram("sglang:uncached_prompt_tokens_histogram",
            "Prompt tokens of a request that were not in the prefix cache.", metrics.uncached_prompt_tokens);
  histogram("sglang:generation_tokens_histogram", "Output tokens of a request.", metrics.generation_tokens);
}

void write_vllm(PrometheusText& page, const std::string& model, const SchedulerStats& stats,
                const ServiceMetrics& metrics) {
  const Labels labels = {{"model_name", model}, {"engine", "0"}};
  const auto gauge = [&](const char* name, const char* help, auto value) {
    page.single(name, "gauge", help, labels, value);
  };
  const auto counter = [&](const char* name, const char* help, int64_t value) {
    page.single(name, "counter", help, labels, value);
  };
  gauge("vllm:num_requests_running", "Requests that run.", stats.running_requests);
  gauge("vllm:num_requests_waiting", "Requests that wait.", stats.waiting_requests);
  gauge("vllm:kv_cache_usage_perc", "Share of the KV pool that live requests hold; 1 is all.",
        ratio(stats.used_tokens, stats.total_tokens));
  counter("vllm:num_preemptions_total", "Preemptions.", stats.retractions);
  counter("vllm:prefix_cache_queries_total", "Prompt tokens looked up in the prefix cache.",
          stats.prompt_tokens);
  counter("vllm:prefix_cache_hits_total", "Prompt tokens found in the prefix cache.",
          stats.prompt_cached_tokens);
  counter("vllm:prompt_tokens_total", "Prompt tokens computed or found in the prefix cache.",
          stats.prompt_tokens);
  counter("vllm:generation_tokens_total", "Output tokens.", stats.generated_tokens);
  if (stats.speculates) {
    counter("vllm:spec_decode_num_drafts_total", "Decode steps that verify guesses.",
            stats.speculation.verify_steps);
    counter("vllm:spec_decode_num_draft_tokens_total", "Guessed tokens.", stats.speculation.draft_tokens);
    counter("vllm:spec_decode_num_accepted_tokens_total", "Guessed tokens that were right.",
            stats.speculation.accepted_tokens);
  }
  page.family("vllm:request_success_total", "counter", "Requests ended, by reason.");
  const auto ended = [&](const char* reason, int64_t value) {
    page.sample(with(labels, "finished_reason", reason), value);
  };
  ended("stop", metrics.outcomes[static_cast<size_t>(Outcome::kStop)].value());
  ended("length", metrics.outcomes[static_cast<size_t>(Outcome::kLength)].value());
  ended("abort", requests_aborted(metrics));
  const auto histogram = [&](const char* name, const char* help, const Histogram& values) {
    write_histogram(page, name, help, labels, values);
  };
  histogram("vllm:time_to_first_token_seconds", "From a request's arrival to its first token.",
            metrics.first_token_seconds);
  histogram("vllm:inter_token_latency_seconds", "Between two tokens of a request.",
            metrics.between_tokens_seconds);
  histogram("vllm:e2e_request_latency_seconds", "From a request's arrival to its end.",
            metrics.request_seconds);
  histogram("vllm:request_queue_time_seconds", "From a request's arrival to its admission.",
            metrics.queue_seconds);
  histogram("vllm:request_prompt_tokens", "Prompt tokens of a request.", metrics.prompt_tokens);
  histogram("vllm:request_generation_tokens", "Output tokens of a request.", metrics.generation_tokens);
}

void write_misses(PrometheusText& page, const Labels& labels, const MissCounters& misses) {
  page.family("fathom:cache_miss_requests_total", "counter",
              "Requests when admitted, by why the prefix cache had no more of their prompt.");
  for (size_t i = 0; i < kMissReasons; ++i) {
    page.sample(with(labels, "reason", std::string(kMissReasonNames[i])), misses.requests[i]);
  }
  page.family("fathom:cache_miss_tokens_total", "counter",
              "Prompt tokens that were not in the prefix cache, by why.");
  for (size_t i = 0; i < kMissReasons; ++i) {
    page.sample(with(labels, "reason", std::string(kMissReasonNames[i])), misses.tokens[i]);
  }
}

void write_own(PrometheusText& page, const ServiceContext& context, const SchedulerStats& stats) {
  const ServiceMetrics& metrics = *context.metrics;
  const Labels labels = {{"model_name", context.card.served_model_name}};
  page.single("fathom:pages_leaked", "gauge",
              "KV pages that are neither free nor cached nor a live request's; anything but 0 is a bug.",
              labels, stats.leaked_pages);
  page.single("fathom:preemptions_total", "counter", "Requests that gave way because the KV pool was full.",
              labels, stats.retractions);
  page.single("fathom:steps_total", "counter", "Steps of the engine.", labels, stats.steps);
  page.single("fathom:cached_tokens", "gauge", "Token places that only the prefix cache holds.", labels,
              stats.cached_tokens);
  write_histogram(page, "fathom:inter_token_latency_seconds",
                  "Between two tokens of a request, in finer buckets than the usual ones.", labels,
                  metrics.fine_between_tokens_seconds);
  write_misses(page, labels, stats.cache_misses);
  page.family("fathom:requests_total", "counter", "Requests ended, by how; each choice counts.");
  for (size_t i = 0; i < kOutcomes; ++i) {
    page.sample(with(labels, "outcome", to_string(static_cast<Outcome>(i))), metrics.outcomes[i].value());
  }
  page.family("fathom:disconnects_total", "counter",
              "Requests whose client vanished, by how far they were; each choice counts.");
  for (size_t i = 0; i < kStages; ++i) {
    page.sample(with(labels, "stage", to_string(static_cast<Stage>(i))), metrics.disconnects[i].value());
  }
  page.family("fathom:http_answers_total", "counter", "Answers by HTTP status.");
  for (size_t i = 0; i < std::size(ServiceMetrics::kStatuses); ++i) {
    const int status = ServiceMetrics::kStatuses[i];
    page.sample({{"code", status == 0 ? "other" : std::to_string(status)}}, metrics.answers[i].value());
  }
}

void write_http(PrometheusText& page, const http::Stats& stats) {
  const auto gauge = [&](const char* name, const char* help, int64_t value) {
    page.single(name, "gauge", help, {}, value);
  };
  const auto counter = [&](const char* name, const char* help, int64_t value) {
    page.single(name, "counter", help, {}, value);
  };
  gauge("fathom:http_open_connections", "Open connections.", stats.connections_open);
  gauge("fathom:http_requests_in_work", "Requests that a handler works on.", stats.handlers_active);
  counter("fathom:http_connections_total", "Connections accepted.", stats.connections_total);
  counter("fathom:http_refused_busy_total", "Refused: too many connections or requests.", stats.refused_busy);
  counter("fathom:http_malformed_total", "Refused before a handler saw them: no HTTP, or over a limit.",
          stats.bad_requests);
  counter("fathom:http_timeouts_total", "Clients that sent or read too slowly.", stats.timeouts);
  counter("fathom:http_clients_gone_total", "Clients that vanished while their request was in work.",
          stats.clients_gone);
}

void write_process(PrometheusText& page) {
  const ProcessReading process = read_process();
  page.single("process_resident_memory_bytes", "gauge", "Resident memory.", {}, process.resident_bytes);
  page.single("process_cpu_seconds_total", "counter", "Processor time, user and system.", {},
              process.cpu_seconds);
  page.single("process_start_time_seconds", "gauge", "Start, Unix time.", {}, process.start_seconds);
  page.single("process_open_fds", "gauge", "Open files.", {}, process.open_files);
  page.single("process_threads", "gauge", "Threads.", {}, process.threads);
}

}  // namespace

void handle_metrics(const ServiceContext& context, const http::Request& /*request*/,
                    http::ResponseWriter& writer) {
  const ServiceOptions& options = context.options;
  if (!options.metrics) {
    return writer.send(error_response(
        {404, "There is no GET /metrics; start the server with --enable-metrics", {}, "not_found"}));
  }
  const SchedulerStats stats = context.sink.stats();
  const std::string& model = context.card.served_model_name;
  PrometheusText page;
  if (options.metric_names != MetricNames::kVllm)
    write_sglang(page, model, context.sink.group_stats(), stats, *context.metrics);
  if (options.metric_names != MetricNames::kSglang) write_vllm(page, model, stats, *context.metrics);
  write_own(page, context, stats);
  if (options.http_stats) write_http(page, options.http_stats());
  write_process(page);
  http::Response response;
  response.content_type = "text/plain; version=0.0.4; charset=utf-8";
  response.body = page.text();
  writer.send(std::move(response));
}

}  // namespace fathom::api
