"""A small test runner: named functions, each bounded in time, and a last line "N passed, N failed"."""
import threading
import time
import traceback

TESTS = []


def test(function):
    """Registers a test: a function of one argument, the Target."""
    TESTS.append(function)
    return function


class Failure(AssertionError):
    pass


def check(condition, message="a condition is false"):
    if not condition:
        raise Failure(message)


def equal(got, expected, what="value"):
    if got != expected:
        raise Failure(f"{what}: got {got!r}, expected {expected!r}")


def raises(kind, call, *args, **kwargs):
    """Calls and returns the exception of `kind` that the call must raise."""
    try:
        result = call(*args, **kwargs)
    except kind as error:
        return error
    raise Failure(f"expected {kind.__name__}, got {str(result)[:200]!r}")


def until(condition, seconds=10.0):
    """True as soon as `condition()` is, False after `seconds`."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.02)
    return False


def run_all(target, seconds_each=300.0, only=""):
    """Runs the tests; returns the number that failed. What a failed one left running is aborted."""
    passed = failed = 0
    for function in TESTS:
        name = f"{function.__module__}.{function.__name__}"
        if only not in name:
            continue
        problem = []

        def body():
            try:
                function(target)
            except BaseException:  # any escape is the test's failure
                problem.append(traceback.format_exc(limit=-4))

        start = time.monotonic()
        thread = threading.Thread(target=body, daemon=True)
        thread.start()
        thread.join(seconds_each)
        if thread.is_alive():
            problem.append(f"still running after {seconds_each:.0f} s\n")
        print(f"{'FAIL' if problem else 'ok  '} {name} ({time.monotonic() - start:.2f} s)", flush=True)
        if problem:
            failed += 1
            target.abort_all()
            print("     " + problem[0].replace("\n", "\n     "), flush=True)
        else:
            passed += 1
    print(f"{passed} passed, {failed} failed")
    return failed
