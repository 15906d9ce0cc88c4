// One line for every request that came and one for every answer (--log-requests). Written by the handlers'
// threads, so that no step waits for a line.
//
// Level 0 holds metadata only: ids, the key's name, sizes, times, how it ended. 1 adds the sampling
// parameters, 2 the first 2 KiB of what was asked and answered, 3 all of it. Keys are never logged.
#pragma once

#include <cstdio>
#include <memory>
#include <mutex>
#include <string>

#include <nlohmann/json.hpp>

#include "api/caller.h"
#include "api/request_log_options.h"
#include "base/result.h"
#include "http/message.h"

namespace fathom::api {

// Thread safe.
class RequestLog {
 public:
  // An Error says why the target cannot be written.
  static Result<std::shared_ptr<RequestLog>> open(const RequestLogOptions& options);
  ~RequestLog();
  RequestLog(const RequestLog&) = delete;
  RequestLog& operator=(const RequestLog&) = delete;

  int level() const { return options_.level; }
  void received(const http::Request& request, const Caller& caller);
  // `status` 0: there was no answer, the client was gone.
  void finished(const http::Request& request, const Caller& caller, int status);

 private:
  RequestLog(RequestLogOptions options, std::FILE* file);
  void write(const char* event, const nlohmann::ordered_json& line);

  const RequestLogOptions options_;
  std::FILE* const file_;
  std::mutex mutex_;
};

}  // namespace fathom::api
