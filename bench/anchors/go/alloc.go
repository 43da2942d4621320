package main

func alloc() {}
