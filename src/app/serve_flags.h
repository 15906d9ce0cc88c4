// The flags of `fathom serve` beside the model's, and what they make of the server.
#pragma once

#include <CLI/CLI.hpp>

#include "api/service.h"
#include "app/args.h"
#include "base/result.h"
#include "http/server.h"

namespace fathom::app {

// Adds the flags to `command`; they set `args`, which must outlive the parse.
void add_serve_flags(CLI::App& command, ServeArgs& args);

http::ServerOptions server_options(const ServeArgs& args);
// Without what only a loaded model can tell.
Result<api::ServiceOptions> service_options(const ServeArgs& args);

}  // namespace fathom::app
