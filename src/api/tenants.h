// API keys and whom they belong to: who may call, how much, and whose cached prefixes and requests are whose.
#pragma once

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "api/errors.h"
#include "base/sha256.h"

namespace fathom::api {

// What one key may use; 0: no limit.
struct KeyLimits {
  int32_t concurrent = 0;           // choices at once
  int64_t requests_per_minute = 0;  // HTTP requests that carry work
  int64_t tokens_per_minute = 0;    // prompt and output tokens

  bool operator==(const KeyLimits&) const = default;
};

// A line of the key file.
struct ApiKey {
  std::string name;
  std::string key;
  KeyLimits limits;
  bool admin = false;    // may use the control routes
  bool metrics = false;  // may read /metrics where that is not for everyone
};

// "NAME:KEY" or "NAME:KEY:OPTION,OPTION...", a line each; empty lines and lines that begin with # are left
// out. Options: concurrent=N, requests-per-minute=N, tokens-per-minute=N, admin, metrics. Names (1 to 64
// letters, digits, '-', '_' or '.') and keys (1 to 256 printable characters without blanks and colons) come
// once. An Error names the line, never the key.
Result<std::vector<ApiKey>> parse_api_keys(std::string_view text);

// Fills with `per_minute` a minute, up to a minute's worth. Not thread safe.
class TokenBucket {
 public:
  explicit TokenBucket(int64_t per_minute) : per_minute_(static_cast<double>(per_minute)) {}

  // Seconds until there is anything in it (`amount` 0), or `amount`; 0: there is now.
  double wait(int64_t now_ns, double amount);
  // May leave a debt; a negative amount is given back.
  void take(int64_t now_ns, double amount);

 private:
  void fill(int64_t now_ns);

  double per_minute_;
  double level_ = 0.0;
  int64_t filled_ns_ = -1;  // -1: full
};

// One key's place. Thread safe.
class Tenant {
 public:
  Tenant(std::string name, const KeyLimits& limits);

  const std::string& name() const { return name_; }
  // A request came: 429 when it is one too many a minute.
  Refusal take_request(int64_t now_ns);
  // Its choices are about to run: 429 when there are too many at once or the minute's tokens are used up.
  // Nothing: the places are taken, and the prompts counted.
  Refusal take_places(int64_t now_ns, int32_t choices, int64_t prompt_tokens);
  void give_places(int32_t choices);
  // Tokens of prompts that were counted and then not worked on.
  void give_tokens(int64_t now_ns, int64_t tokens);
  void count_output(int64_t now_ns, int64_t tokens);

 private:
  const std::string name_;
  const KeyLimits limits_;
  std::mutex mutex_;
  TokenBucket requests_;
  TokenBucket tokens_;
  int32_t running_ = 0;
};

// The keys in force. Thread safe.
class KeyRing {
 public:
  struct Access {
    std::shared_ptr<Tenant> tenant;  // null: the administrator's own key
    bool admin = false;
    bool metrics = false;
  };

  // `admin_key` empty: there is none.
  KeyRing(std::string_view admin_key, const std::vector<ApiKey>& keys);

  // The keys of the file, new ones and those that are left. A tenant whose name and limits stay goes on with
  // its counts; running requests go on in any case.
  void replace(const std::vector<ApiKey>& keys);

  // Whose `key` is; nothing: nobody's. Its time depends on the length of `key` and the number of keys only.
  std::optional<Access> find(std::string_view key) const;

 private:
  struct Entry {
    Sha256 digest;
    Access access;
    KeyLimits limits;
  };

  std::optional<Sha256> admin_;
  mutable std::mutex mutex_;
  std::shared_ptr<const std::vector<Entry>> entries_;  // replaced as a whole
};

}  // namespace fathom::api
