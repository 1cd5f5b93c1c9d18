//! The `In` family beside the other operators: arrays, ranges and texts that are JSON.

use super::operator_tests::check;

#[test]
fn one_value_is_in_an_array() {
    check(ELEMENTS);
}

#[test]
fn elements_of_an_array_are_in_a_value() {
    check(ARRAYS);
}

#[test]
fn values_are_in_a_range() {
    check(RANGES);
}

#[test]
fn texts_are_read_as_json() {
    check(JSON_TEXTS);
}

/// One text, number or truth value against an array.
const ELEMENTS: &str = r#"
1 | [1,2,3] | != AnyIn AllIn In
1.5 | [1,1.5,2,3] | != AnyIn AllIn In
"1" | ["1","2","3"] | != AnyIn AllIn In
5 | [1,2,3] | != AnyNotIn AllNotIn NotIn
5.5 | [1,1.5,2,3] | != AnyNotIn AllNotIn NotIn
"5" | ["1","2","3"] | != AnyNotIn AllNotIn NotIn
"1.1.1.1" | ["1*"] | != AnyIn AllIn In
"kube-system" | ["default","kube-*"] | != AnyIn AllIn In
2.2 | [1.1,2.2,3.3] | != AnyIn AllIn In
"" | ["default","kyverno"] | != AnyNotIn AllNotIn NotIn
"apple" | ["apple","banana","cherry"] | != AnyIn AllIn In
"grape" | ["apple","banana","cherry"] | != AnyNotIn AllNotIn NotIn
"apple" | [] | != AnyNotIn AllNotIn NotIn
42 | ["42","43","44"] | != AnyIn AllIn In
99 | ["42","43","44"] | != AnyNotIn AllNotIn NotIn
100 | ["100","200"] | != AnyIn AllIn In
3.14 | ["3.14","2.71"] | != AnyIn AllIn In
true | ["true","false"] | != AnyIn AllIn In
{"foo":"bar"} | ["a","b"] | !=
null | [null] |
true | [true] | != AnyIn AllIn In
true | ["true",1] | != AnyIn AllIn In
{} | [] | !=
1000000 | [1000000] | != AnyNotIn AllNotIn NotIn
1000000 | ["1e+06"] | != AnyIn AllIn In
"a*" | ["abc"] | != AnyIn AllIn In
"*" | ["trusted"] | != AnyIn AllIn In
"#;

/// Arrays against arrays and single values.
const ARRAYS: &str = r#"
["foo","bar"] | ["foo","bar"] | = AnyIn AllIn In
[{"foo":"bar"}] | [{"foo":"bar"}] | = AnyIn AllIn
["foo","bar"] | ["bar","foo"] | != AnyIn AllIn In
[{"foo":"bar"}] | [{"bar":"foo"}] | != AnyNotIn AllNotIn
["1.1.1.1","2.2.2.2"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyIn AllIn In
["1.1.1.1","4.4.4.4"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyIn AnyNotIn NotIn
["1.1.1.1","5.5.5.5"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyIn AnyNotIn NotIn
["1.1.1.1","5.5.5.5"] | "1.1.1.1" | != AnyIn AnyNotIn
["4.4.4.4","5.5.5.5"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyNotIn AllNotIn NotIn
["1.1.1.1","5.5.5.5"] | ["1.1.1.1"] | != AnyIn AnyNotIn NotIn
[1,2] | [1,2,3,4] | != AnyIn AllIn
[1,5] | [1,2,3,4] | != AnyIn AnyNotIn
[5] | [1,2,3,4] | != AnyNotIn AllNotIn
["1*"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyIn AllIn NotIn
["5*"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyNotIn AllNotIn NotIn
["1.1.1.1","2.2.2.2","5.5.5.5"] | ["2*"] | != AnyIn AnyNotIn NotIn
["1.1.1.1","2.2.2.2","5.5.5.5"] | ["4*"] | != AnyNotIn AllNotIn NotIn
["2.1.1.1","2.2.2.2","2.5.5.5"] | ["2*"] | != AnyIn AllIn NotIn
["1.1.1.1","5.5.5.5"] | "5.5.5.5" | != AnyIn AnyNotIn
["1.1.1.1","4.4.4.4"] | ["1.1.1.1","2.2.2.2","3.3.3.3","1.1.1.1"] | != AnyIn AnyNotIn NotIn
["1.1.1.1","4.4.4.4","1.1.1.1"] | ["1.1.1.1","2.2.2.2","3.3.3.3","1.1.1.1","4.4.4.4"] | != AnyIn AllIn In
["5.5.5.5","4.4.4.4"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyNotIn AllNotIn NotIn
["7*","6*","5*"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyNotIn AllNotIn NotIn
["1*","2*"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyIn AllIn NotIn
["1.1.1.1","3.3.3.3","5.5.5.5"] | ["2*"] | != AnyNotIn AllNotIn NotIn
["4.1.1.1","4.2.2.2","4.5.5.5"] | ["4*"] | != AnyIn AllIn NotIn
["1.1.1.1","4.4.4.4"] | "2.2.2.2" | != AnyNotIn AllNotIn
["5.5.5.5","4.4.4.4"] | "4.4.4.4" | != AnyIn AnyNotIn
["1*","3*","5*"] | ["1.1.1.1","2.2.2.2","3.3.3.3"] | != AnyIn AnyNotIn NotIn
["2.2*"] | ["2.2.2.2"] | != AnyIn AllIn NotIn
["kube-system","kube-public"] | "kube-*" | != AnyIn AllIn
["kube-system","default"] | "kube-system" | != AnyIn AnyNotIn
["default","kyverno"] | "kube-*" | != AnyNotIn AllNotIn
["default","kyverno"] | ["kube-*","kube-system"] | != AnyNotIn AllNotIn NotIn
["default","kyverno"] | ["kube-*","ky*"] | != AnyIn AnyNotIn NotIn
[1,2,3] | 2 | != AnyIn AnyNotIn
[1,2,3] | 4 | != AnyNotIn
[1.1,2.2,3.3] | 1.1 | != AnyIn AnyNotIn
[1.1,2.2,3.3] | 4.4 | != AnyNotIn
[true,false] | true | != AnyIn AnyNotIn
[true] | false | != AnyNotIn
[] | ["default","kyverno"] | != AllIn AllNotIn In
["a","b","c"] | ["a","b","c"] | = AnyIn AllIn In
["a","b","c"] | ["a","b","d"] | != AnyIn AnyNotIn NotIn
["a","b","c"] | ["a","b"] | != AnyIn AnyNotIn NotIn
["a","b","c"] | "not a slice" | != AnyNotIn AllNotIn
["apple","banana"] | ["apple","banana","cherry"] | != AnyIn AllIn In
["apple","grape"] | ["apple","banana","cherry"] | != AnyIn AnyNotIn NotIn
["a","b"] | ["a","c"] | != AnyIn AnyNotIn NotIn
[] | [] | = AllIn AllNotIn In
[] | "a" | != AllIn AllNotIn
[] | null | !=
[] | 5 | !=
[1,"a",null,{"b":1}] | ["1","a","<nil>","map[b:1]"] | != AnyIn AllIn
[1,2] | [1,2] | = AnyIn AllIn
[2,1] | [1,2] | != AnyIn AllIn
[["a"]] | [["a"]] | = AnyIn AllIn
[1000000] | ["1000000"] | != AnyIn AllIn
[1000000] | 1000000 | != AnyNotIn
["*"] | ["trusted"] | != AnyIn AllIn NotIn
["3","4"] | "5" | !=
["a","b"] | "a" | != AnyIn AnyNotIn
["a","b"] | true | != AnyNotIn
["true"] | true | != AnyIn
["a","b"] | {"a":1} | !=
["a",1] | ["a"] | != AnyIn AnyNotIn
["a"] | ["a",1] | != AnyIn AllIn
["a"] | "b" | != AnyNotIn AllNotIn
["a","b"] | ["b","a","c"] | != AnyIn AllIn In
["a","d"] | ["b","a","c"] | != AnyIn AnyNotIn NotIn
["ab","ac"] | ["a*"] | != AnyIn AllIn NotIn
["a*"] | ["ab","b"] | != AnyIn AllIn NotIn
"#;

/// Texts that are ranges.
const RANGES: &str = r#"
["5"] | "1-3" | != AnyNotIn AllNotIn
"5" | "1-10" | != AnyIn AllIn
5 | "1-10" | != AnyIn AllIn
[1,5] | "7-10" | != AnyNotIn AllNotIn
[1,5] | "0-10" | != AnyIn AllIn
[1.002,1.222] | "1.001-10" | != AnyIn AllIn
[3,2] | "1-10" | != AnyIn AllIn
[3,2] | "5-10" | != AnyNotIn AllNotIn
5.5 | "6-10" | != AnyNotIn AllNotIn
"5" | "1-6" | != AnyIn AllIn
[2,6] | "5-10" | != AnyIn AnyNotIn
"5" | "1-3" | != AnyNotIn AllNotIn
[1,5,11] | "0-10" | != AnyIn AnyNotIn
[1,5,7] | "0-10" | != AnyIn AllIn
[] | "1-2" | != AllIn AllNotIn
"5" | "+1-+10" | != AnyIn AllIn
"10" | "1-10" | != AnyIn AllIn
"11" | "1-10" | != AnyNotIn AllNotIn
"1-10" | "1-10" | = AnyIn AllIn In
["1-10","5"] | "1-10" | != AnyIn AllIn
"5m" | "1-10" | != AnyNotIn AllNotIn
"90s" | "1m-2m" | != AnyIn AllIn
"90" | "1m-2m" | != AnyNotIn AllNotIn
"1.5Ki" | "1Ki-2Ki" | != AnyIn AllIn
"x" | "1-10" | != AnyNotIn AllNotIn
["5","x"] | "1-10" | != AnyIn
["x"] | "1-10" | != AllNotIn
["5","20"] | "1-10" | != AnyIn AnyNotIn
["1","20"] | "10-1" | != AnyNotIn AllNotIn
"5" | "1.-10" | != AnyNotIn AllNotIn
"5" | "1-10-20" | != AnyNotIn AllNotIn
"2.5" | "2.4-2.6" | != AnyIn AllIn
"-3" | "-5-3" | != AnyIn AllIn
"-7" | "-5-3" | != AnyNotIn AllNotIn
"#;

/// Texts that are JSON.
const JSON_TEXTS: &str = r#"
"apple" | "[\"apple\", \"banana\", \"cherry\"]" | != AnyIn AllIn In
"grape" | "[\"apple\", \"banana\", \"cherry\"]" | != AnyNotIn AllNotIn NotIn
["apple","banana"] | "[\"apple\", \"banana\", \"cherry\"]" | != AnyIn AllIn In
false | "[\"false\"]" | != AnyIn AllIn In
"a" | "[\"a\"]" | != AnyIn AllIn In
"a" | "[\"a*\"]" | != AnyNotIn AllNotIn NotIn
["a","b"] | "[\"a*\",\"c\"]" | != AnyIn AnyNotIn NotIn
["a"] | "[\"a\"]" | != AnyIn AllIn In
"a" | "[\"a\",1]" | !=
["a"] | "[\"a\",1]" | !=
"a" | "[]" | != AnyNotIn AllNotIn NotIn
["a"] | "[]" | != AnyNotIn AllNotIn NotIn
"a" | "null" | != AnyNotIn AllNotIn NotIn
["a"] | "null" | != AnyNotIn AllNotIn NotIn
"" | "[null]" | != AnyIn AllIn In
"a" | "{\"a\":1}" | !=
"a" | "\"a\"" | !=
["a","b"] | "[a" | != AnyNotIn AllNotIn
"#;
