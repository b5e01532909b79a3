package main

func memoryTrouble() []scenario { return nil }

func ioTrouble() []scenario { return nil }
