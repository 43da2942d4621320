// The job of trace gcc-cxx: a small program whose templates are work for the compiler.
#include <algorithm>
#include <functional>
#include <iostream>
#include <map>
#include <memory>
#include <regex>
#include <string>
#include <unordered_map>
#include <variant>
#include <vector>
using Value = std::variant<int, double, std::string, std::vector<int>, std::map<std::string, int>>;
template <int N> struct Tower { std::unordered_map<std::string, std::map<int, std::vector<Value>>> level; Tower<N - 1> below;
    void visit(const std::function<void(Value &)> &f) { for (auto &[k, m] : level) for (auto &[i, v] : m) for (auto &x : v) f(x); below.visit(f); } };
template <> struct Tower<0> { void visit(const std::function<void(Value &)> &) {} };
int main() {
    Tower<12> t; std::regex r("([a-z]+)-(\\d+)"); std::smatch m; std::string s = "alpha-12";
    if (std::regex_match(s, m, r)) std::cout << m[1] << '\n';
    t.level["x"][3].push_back(std::string("y"));
    t.visit([](Value &v) { std::visit([](auto &x) { std::cout << sizeof x << '\n'; }, v); });
    auto p = std::make_shared<Tower<3>>(); std::vector<std::string> names{"c", "a", "b"};
    std::sort(names.begin(), names.end(), [](const auto &a, const auto &b) { return a > b; });
    return int(names.size());
}
