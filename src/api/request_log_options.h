// How requests are logged (--log-requests...).
#pragma once

#include <string>

namespace fathom::api {

struct RequestLogOptions {
  int level = 0;
  bool json = false;              // a JSON object a line, without the log's own prefix
  std::string target = "stderr";  // stderr, stdout, or a file to append to
};

}  // namespace fathom::api
