#include "api/tenants.h"

#include <algorithm>
#include <charconv>
#include <cmath>
#include <set>

namespace fathom::api {
namespace {

constexpr double kMinute = 60e9;
constexpr size_t kMaxName = 64;
constexpr size_t kMaxKey = 256;

// Cuts `text` at the first `separator` and takes what stands before it.
std::string_view take_until(char separator, std::string_view* text) {
  const size_t end = std::min(text->find(separator), text->size());
  const std::string_view part = text->substr(0, end);
  text->remove_prefix(std::min(end + 1, text->size()));
  return part;
}

std::string_view trim(std::string_view text) {
  const size_t first = text.find_first_not_of(" \t\r");
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(" \t\r") - first + 1);
}

bool good_name(std::string_view name) {
  const auto good = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  return !name.empty() && name.size() <= kMaxName && std::all_of(name.begin(), name.end(), good);
}

bool good_key(std::string_view key) {
  return !key.empty() && key.size() <= kMaxKey &&
         std::all_of(key.begin(), key.end(), [](char c) { return c > ' ' && c <= '~'; });
}

Result<void> read_option(std::string_view option, ApiKey* key) {
  const std::string_view name = take_until('=', &option);
  if (option.empty() && name == "admin") {
    key->admin = true;
    return {};
  }
  if (option.empty() && name == "metrics") {
    key->metrics = true;
    return {};
  }
  int64_t value = 0;
  const auto [end, status] = std::from_chars(option.data(), option.data() + option.size(), value);
  if (status != std::errc() || end != option.data() + option.size() || value < 1 || value > INT32_MAX) {
    return error(
        ErrorCode::kInvalidArgument,
        "the option '{}': expected concurrent=N, requests-per-minute=N, tokens-per-minute=N, admin or "
        "metrics",
        name);
  }
  if (name == "concurrent") {
    key->limits.concurrent = static_cast<int32_t>(value);
  } else if (name == "requests-per-minute") {
    key->limits.requests_per_minute = value;
  } else if (name == "tokens-per-minute") {
    key->limits.tokens_per_minute = value;
  } else {
    return error(
        ErrorCode::kInvalidArgument,
        "the option '{}' is unknown: expected concurrent, requests-per-minute, tokens-per-minute, admin "
        "or metrics",
        name);
  }
  return {};
}

Result<ApiKey> read_key(std::string_view line) {
  ApiKey key;
  key.name = take_until(':', &line);
  key.key = take_until(':', &line);
  if (!good_name(key.name)) {
    return error(
        ErrorCode::kInvalidArgument,
        "expected NAME:KEY or NAME:KEY:OPTIONS, the name of 1 to {} letters, digits, '-', '_' or '.'",
        kMaxName);
  }
  if (!good_key(key.key)) {
    return error(ErrorCode::kInvalidArgument,
                 "the key of {}: expected 1 to {} printable characters without blanks and colons", key.name,
                 kMaxKey);
  }
  while (!line.empty()) FATHOM_TRY(read_option(trim(take_until(',', &line)), &key));
  return key;
}

ApiError too_many(std::string message, double seconds) {
  ApiError error{429, std::move(message), {}, "rate_limit_exceeded"};
  error.retry_after = std::max(1, static_cast<int>(std::ceil(seconds)));
  return error;
}

}  // namespace

Result<std::vector<ApiKey>> parse_api_keys(std::string_view text) {
  std::vector<ApiKey> keys;
  std::set<std::string> names;
  std::set<std::string> secrets;
  for (int number = 1; !text.empty(); ++number) {
    const std::string_view line = trim(take_until('\n', &text));
    if (line.empty() || line.starts_with('#')) continue;
    Result<ApiKey> key = read_key(line);
    if (!key.ok()) return key.error().with_context(fmt::format("line {}", number));
    if (!names.insert(key->name).second || !secrets.insert(key->key).second) {
      return error(ErrorCode::kInvalidArgument, "line {}: the name or the key of {} is there already", number,
                   key->name);
    }
    keys.push_back(std::move(key).value());
  }
  return keys;
}

void TokenBucket::fill(int64_t now_ns) {
  if (filled_ns_ < 0) {
    level_ = per_minute_;
  } else if (now_ns > filled_ns_) {
    const double added = per_minute_ * static_cast<double>(now_ns - filled_ns_) / kMinute;
    level_ = std::min(per_minute_, level_ + added);
  }
  filled_ns_ = std::max(filled_ns_, now_ns);
}

double TokenBucket::wait(int64_t now_ns, double amount) {
  fill(now_ns);
  const double missing = amount - level_;
  if (missing < 0 || (missing == 0 && amount > 0)) return 0.0;
  return std::max(missing / per_minute_ * 60.0, 1e-3);
}

void TokenBucket::take(int64_t now_ns, double amount) {
  fill(now_ns);
  level_ = std::min(per_minute_, level_ - amount);
}

Tenant::Tenant(std::string name, const KeyLimits& limits)
    : name_(std::move(name)),
      limits_(limits),
      requests_(limits.requests_per_minute),
      tokens_(limits.tokens_per_minute) {}

Refusal Tenant::take_request(int64_t now_ns) {
  if (limits_.requests_per_minute == 0) return std::nullopt;
  std::lock_guard lock(mutex_);
  if (const double wait = requests_.wait(now_ns, 1.0); wait > 0) {
    return too_many(
        fmt::format("The key '{}' may send {} requests a minute", name_, limits_.requests_per_minute), wait);
  }
  requests_.take(now_ns, 1.0);
  return std::nullopt;
}

Refusal Tenant::take_places(int64_t now_ns, int32_t choices, int64_t prompt_tokens) {
  std::lock_guard lock(mutex_);
  if (limits_.concurrent > 0) {
    if (choices > limits_.concurrent) {
      return ApiError{400,
                      fmt::format("n: the request has {} choices, and the key '{}' may have {} at once",
                                  choices, name_, limits_.concurrent),
                      "n",
                      {}};
    }
    if (running_ + choices > limits_.concurrent) {
      return too_many(fmt::format("The key '{}' may have {} choices at once, and {} run", name_,
                                  limits_.concurrent, running_),
                      1.0);
    }
  }
  if (limits_.tokens_per_minute > 0) {
    // Any request may run once something is left: what it takes beyond that is a debt, which later ones wait
    // for.
    if (const double wait = tokens_.wait(now_ns, 0.0); wait > 0) {
      return too_many(
          fmt::format("The key '{}' may use {} tokens a minute", name_, limits_.tokens_per_minute), wait);
    }
    tokens_.take(now_ns, static_cast<double>(prompt_tokens));
  }
  running_ += choices;
  return std::nullopt;
}

void Tenant::give_places(int32_t choices) {
  std::lock_guard lock(mutex_);
  running_ -= choices;
}

void Tenant::give_tokens(int64_t now_ns, int64_t tokens) {
  count_output(now_ns, -tokens);
}

void Tenant::count_output(int64_t now_ns, int64_t tokens) {
  if (limits_.tokens_per_minute == 0) return;
  std::lock_guard lock(mutex_);
  tokens_.take(now_ns, static_cast<double>(tokens));
}

KeyRing::KeyRing(std::string_view admin_key, const std::vector<ApiKey>& keys) {
  if (!admin_key.empty()) admin_ = sha256(admin_key);
  replace(keys);
}

void KeyRing::replace(const std::vector<ApiKey>& keys) {
  std::lock_guard lock(mutex_);
  auto entries = std::make_shared<std::vector<Entry>>();
  const auto before = entries_ ? entries_ : std::make_shared<const std::vector<Entry>>();
  for (const ApiKey& key : keys) {
    Entry& entry = entries->emplace_back();
    entry.digest = sha256(key.key);
    entry.limits = key.limits;
    entry.access.admin = key.admin;
    entry.access.metrics = key.metrics;
    for (const Entry& old : *before) {
      if (old.access.tenant->name() == key.name && old.limits == key.limits) {
        entry.access.tenant = old.access.tenant;
      }
    }
    if (!entry.access.tenant) entry.access.tenant = std::make_shared<Tenant>(key.name, key.limits);
  }
  entries_ = std::move(entries);
}

std::optional<KeyRing::Access> KeyRing::find(std::string_view key) const {
  const Sha256 digest = sha256(key);
  std::shared_ptr<const std::vector<Entry>> entries;
  {
    std::lock_guard lock(mutex_);
    entries = entries_;
  }
  // Every key is compared, so that the time does not tell which one was near.
  const Entry* found = nullptr;
  for (const Entry& entry : *entries) {
    if (equal_in_constant_time(entry.digest, digest)) found = &entry;
  }
  const bool admin = admin_ && equal_in_constant_time(*admin_, digest);
  if (admin) return Access{nullptr, true, true};
  if (found == nullptr) return std::nullopt;
  return found->access;
}

}  // namespace fathom::api
