#include "app/args.h"

int main(int argc, char** argv) {
  return fathom::app::run_command_line(argc, argv);
}
