#include "app/args.h"
#include "app/version.h"
#include "base/crash_report.h"

int main(int argc, char** argv) {
  fathom::report_crashes(fathom::app::kVersion);
  return fathom::app::run_command_line(argc, argv);
}
