#include "app/serve_flags.h"

#include <algorithm>

#include "text/grammar/grammars.h"

namespace fathom::app {
namespace {

constexpr int64_t kMaxBytes = int64_t{1} << 32;

template <class T>
std::string with_default(const char* text, const T& value) {
  return fmt::format("{}; default: {}", text, value);
}

// As in a key file. The key itself is never shown.
std::string check_key(const std::string& key) {
  constexpr size_t kMaxKey = 256;
  if (key.empty()) return "got an empty key, which would let everyone in; give one, or leave the flag out";
  const bool printable = std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; });
  if (printable && key.size() <= kMaxKey) return {};
  return fmt::format("got {}, expected 1 to {} printable characters without blanks",
                     printable ? fmt::format("{} characters", key.size()) : "others than printable ones",
                     kMaxKey);
}

// Others write the list as JSON: ["*"].
std::string bare_origin(std::string origin) {
  std::erase_if(origin, [](char c) { return std::string_view("[]\" ").find(c) != std::string_view::npos; });
  return origin;
}
std::string check_origin(const std::string& origin) {
  const auto host = origin.find("://");
  const bool whole = host != std::string::npos && host > 0 && host + 3 < origin.size() &&
                     origin.find_first_of("/?#", host + 3) == std::string::npos;
  if (origin == "*" || origin == "none" || whole) return {};
  return fmt::format("got '{}', expected *, none, or origins as https://chat.example:8443", origin);
}

void add_server(CLI::App& group, ServeArgs& args) {
  group.add_option("--host", args.host, with_default("Address to listen on", args.host));
  group.add_option("--port", args.port, with_default("Port; 0: any free one", args.port))
      ->check(CLI::Range(0, 65535));
  group.add_option(
      "--served-model-name", args.served_model_name,
      "Name in /v1/models, then further ones that requests may give (*: any); default: --model-path");
  group.add_option(
      "--default-chat-template-kwargs", args.default_chat_template_kwargs,
      "Template variables where a request does not set them, a JSON object: {\"thinking\": true}");
  group
      .add_option(
          "--sampling-defaults", args.model.sampling_defaults,
          with_default(
              "Where a request sets no temperature, top_p and so on: model (its generation_config.json), "
              "or openai (all 1, nothing cut)",
              args.model.sampling_defaults))
      ->check(CLI::IsMember({"model", "openai"}));
  group.add_flag(
      "--split-special-tokens,!--no-split-special-tokens", args.split_special_tokens,
      "Special tokens that clients write in messages and tools are plain text (the default), so that "
      "no text can end a turn or begin another; a request may say otherwise");
  group
      .add_option("--drain-timeout", args.drain_timeout,
                  with_default("Seconds to finish requests after SIGTERM", args.drain_timeout))
      ->check(CLI::Range(0, 86400));
  group
      .add_option("--keep-alive-interval", args.keep_alive_interval,
                  with_default("Seconds between comments in a stream that has nothing to say",
                               args.keep_alive_interval))
      ->check(CLI::Range(0.1, 3600.0));
}

void add_access(CLI::App& group, ServeArgs& args) {
  group.add_option("--api-key", args.api_key, "Key that clients must send as a bearer token")
      ->check(check_key);
  group.add_option("--api-key-file", args.api_key_file,
                   "File of keys, NAME:KEY[:OPTIONS] a line; read again when it changes, and on SIGHUP");
  group
      .add_option("--allowed-origins", args.allowed_origins,
                  "Web pages that may read answers in a browser, with blanks or commas between: origins, * "
                  "(any), or none; default: *")
      ->delimiter(',')
      ->transform(bare_origin)
      ->check(check_origin);
  group
      .add_option("--admin-api-key", args.admin_api_key,
                  "Key for what touches or shows everyone's requests (/flush_cache, abort_all, ...)")
      ->check(check_key);
  group
      .add_option(
          "--multi-tenant", args.multi_tenant,
          "auto (on with --api-key-file), on or off: keys share no prefixes and see nothing of each other")
      ->check(CLI::IsMember({"auto", "on", "off"}));
}

void add_connection_limits(CLI::App& group, ServeArgs& args) {
  group
      .add_option("--max-connections", args.max_connections,
                  with_default("Open connections; above: 503", args.max_connections))
      ->check(CLI::Range(1, 1 << 20));
  group
      .add_option(
          "--max-concurrent-requests", args.max_concurrent_requests,
          with_default(
              "HTTP requests in work, streams included; above: 503, but for probes, metrics and control",
              args.max_concurrent_requests))
      ->check(CLI::Range(1, 1 << 16));
  group
      .add_option("--max-header-bytes", args.max_header_bytes,
                  with_default("Of a request's head; above: 431", args.max_header_bytes))
      ->check(CLI::Range(int64_t{256}, int64_t{1} << 24));
  group
      .add_option("--max-body-bytes", args.max_body_bytes,
                  with_default("Of a request's body; above: 413", args.max_body_bytes))
      ->check(CLI::Range(int64_t{1}, kMaxBytes));
  group
      .add_option("--header-timeout", args.header_timeout,
                  with_default("Seconds for a request's head; then: 408", args.header_timeout))
      ->check(CLI::Range(1, 3600));
  group
      .add_option("--body-timeout", args.body_timeout,
                  with_default("Seconds that a body may pause; then: 408", args.body_timeout))
      ->check(CLI::Range(1, 3600));
  group
      .add_option("--write-timeout", args.write_timeout,
                  with_default("Seconds that a reader may pause; then it is given up", args.write_timeout))
      ->check(CLI::Range(1, 3600));
  group
      .add_option("--idle-timeout", args.idle_timeout,
                  with_default("Seconds that a connection may be idle", args.idle_timeout))
      ->check(CLI::Range(1, 86400));
  group
      .add_option("--min-bytes-per-second", args.min_bytes_per_second,
                  with_default("Of bodies and slow readers, after their timeout's first round",
                               args.min_bytes_per_second))
      ->check(CLI::Range(int64_t{1}, int64_t{1} << 30));
}

void add_request_limits(CLI::App& group, api::Limits& limits) {
  group.add_option("--max-messages", limits.messages, with_default("Of one request", limits.messages))
      ->check(CLI::Range(1, 1 << 20));
  group.add_option("--max-tools", limits.tools, with_default("Of one request", limits.tools))
      ->check(CLI::Range(0, 1 << 16));
  group.add_option("--max-choices", limits.choices, with_default("n of one request", limits.choices))
      ->check(CLI::Range(1, 1 << 16));
  group.add_option("--max-batch", limits.batch, with_default("Prompts x n of one request", limits.batch))
      ->check(CLI::Range(1, 1 << 20));
  group.add_option("--max-stop-strings", limits.stops, with_default("Of one request", limits.stops))
      ->check(CLI::Range(0, 1 << 12));
  group
      .add_option("--max-stop-bytes", limits.stop_bytes,
                  with_default("Of each stop string", limits.stop_bytes))
      ->check(CLI::Range(1, 1 << 16));
  group
      .add_option("--max-logit-bias", limits.logit_bias,
                  with_default("Entries of one request", limits.logit_bias))
      ->check(CLI::Range(0, 1 << 14));
  group
      .add_option("--max-grammar-bytes", limits.grammar_bytes,
                  with_default("Of a schema, a regular expression or an EBNF", limits.grammar_bytes))
      ->check(CLI::Range(size_t{1}, text::kMaxGrammarBytes));
  group
      .add_option("--max-json-depth", limits.json_depth,
                  with_default("Nested objects and lists of a body, schemas included", limits.json_depth))
      ->check(CLI::Range(4, 256));
  group.add_option("--max-json-keys", limits.json_keys, with_default("Of one object", limits.json_keys))
      ->check(CLI::Range(16, 1 << 20));
  group.add_option("--max-json-values", limits.json_values, with_default("Of a body", limits.json_values))
      ->check(CLI::Range(16, 1 << 28));
}

void add_watching(CLI::App& group, ServeArgs& args) {
  group.add_option("--log-level", args.model.log_level,
                   with_default("debug, info, warning, error or off", args.model.log_level));
  auto* log = group.add_flag("--log-requests", args.log_requests, "Log every request and every answer");
  group
      .add_option(
          "--log-requests-level", args.request_log.level,
          with_default(
              "0: metadata, 1: and sampling parameters, 2: and 2 KiB of the contents, 3: all contents",
              args.request_log.level))
      ->check(CLI::Range(0, 3))
      ->needs(log);
  group
      .add_option_function<std::string>(
          "--log-requests-format", [&](const std::string& form) { args.request_log.json = form == "json"; },
          "text or json (an object a line); default: text")
      ->check(CLI::IsMember({"text", "json"}))
      ->default_str("text")
      ->needs(log);
  group
      .add_option("--log-requests-target", args.request_log.target,
                  with_default("stderr, stdout or a file", args.request_log.target))
      ->needs(log);
  auto* metrics = group.add_flag("--enable-metrics", args.enable_metrics, "Serve /metrics for Prometheus");
  group
      .add_option(
          "--metrics-names", args.metrics_names,
          with_default("Names in /metrics: sglang, vllm or both; fathom: and process_ are always there",
                       args.metrics_names))
      ->check(CLI::IsMember({"sglang", "vllm", "both"}))
      ->needs(metrics);
}

}  // namespace

void add_serve_flags(CLI::App& command, ServeArgs& args) {
  add_server(*command.add_option_group("Server"), args);
  add_access(*command.add_option_group("Keys and tenants"), args);
  auto* limits = command.add_option_group("Limits");
  add_connection_limits(*limits, args);
  add_request_limits(*limits, args.limits);
  add_watching(*command.add_option_group("Logs and metrics"), args);
}

http::ServerOptions server_options(const ServeArgs& args) {
  using std::chrono::seconds;
  http::ServerOptions options;
  options.host = args.host;
  options.port = static_cast<uint16_t>(args.port);
  options.cors_origins = args.allowed_origins;
  std::erase(options.cors_origins, "none");
  options.max_connections = args.max_connections;
  options.max_handlers = args.max_concurrent_requests;
  options.max_header_bytes = static_cast<size_t>(args.max_header_bytes);
  options.max_body_bytes = static_cast<size_t>(args.max_body_bytes);
  options.header_timeout = seconds(args.header_timeout);
  options.body_timeout = seconds(args.body_timeout);
  options.write_timeout = seconds(args.write_timeout);
  options.idle_timeout = seconds(args.idle_timeout);
  options.min_bytes_per_second = static_cast<size_t>(args.min_bytes_per_second);
  return options;
}

Result<api::ServiceOptions> service_options(const ServeArgs& args) {
  api::ServiceOptions options;
  options.api_key = args.api_key;
  options.admin_api_key = args.admin_api_key;
  options.multi_tenant =
      args.multi_tenant == "on" || (args.multi_tenant == "auto" && !args.api_key_file.empty());
  if (options.multi_tenant && args.api_key_file.empty()) {
    return error(ErrorCode::kInvalidArgument,
                 "--multi-tenant on: needs --api-key-file, since tenants are told apart by their keys");
  }
  if (!args.admin_api_key.empty() && args.admin_api_key == args.api_key) {
    return error(ErrorCode::kInvalidArgument, "--admin-api-key: must not be the same as --api-key");
  }
  if (!args.default_chat_template_kwargs.empty()) {
    FATHOM_ASSIGN(options.default_chat_template_kwargs,
                  api::parse_default_kwargs(args.default_chat_template_kwargs));
  }
  options.split_special_tokens = args.split_special_tokens;
  options.limits = args.limits;
  options.keep_alive_seconds = args.keep_alive_interval;
  if (args.log_requests) {
    FATHOM_ASSIGN(options.request_log, api::RequestLog::open(args.request_log));
  }
  options.metrics = args.enable_metrics;
  if (args.metrics_names == "vllm") options.metric_names = api::MetricNames::kVllm;
  if (args.metrics_names == "both") options.metric_names = api::MetricNames::kBoth;
  return options;
}

}  // namespace fathom::app
