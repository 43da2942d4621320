// A C++ plugin for a program without C++: its C++ library comes in a local scope. It must catch its own bad_alloc.
#include <cstdint>
#include <new>
#include <string>
#include <vector>

extern "C" int plugin_run()
{
    std::vector<std::string> words;
    for (int i = 0; i < 1000; i++)
        words.push_back(std::string(std::size_t(i), 'x'));
    volatile std::size_t n = PTRDIFF_MAX - 4096;
    if (::operator new(n, std::nothrow))
        return 1;
    try {
        ::operator delete(::operator new(n));
    } catch (const std::bad_alloc &) {
        return 42;
    }
    return 2;
}
