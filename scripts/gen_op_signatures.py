#!/usr/bin/env python3
"""Prints src/jit/trace/op_signatures.ts: argument names and types of the ops that jit knows, from the registry of the libtensorflow in DIR.

Usage: gen-op-signatures.py DIR < src/jit/trace/op_signatures.ts > new.ts
DIR holds libtensorflow_cc.so.2 and libtensorflow_framework.so.2. The ops are those named in the file on standard input: to add one, add a line
`  Name: '',` first. Needs no Python package.
"""
import ctypes
import os
import re
import sys

DTYPES = {1: 'float32', 2: 'float64', 3: 'int32', 4: 'uint8', 5: 'int16', 6: 'int8', 7: 'string', 8: 'complex64', 9: 'int64', 10: 'bool',
          14: 'bfloat16', 17: 'uint16', 18: 'complex128', 19: 'float16', 20: 'resource', 21: 'variant', 22: 'uint32', 23: 'uint64'}


class Buffer(ctypes.Structure):
    _fields_ = [('data', ctypes.c_void_p), ('length', ctypes.c_size_t), ('deallocator', ctypes.c_void_p)]


def op_list(folder):
    """The serialized OpList of all registered ops."""
    ctypes.CDLL(os.path.join(folder, 'libtensorflow_framework.so.2'), mode=ctypes.RTLD_GLOBAL)
    library = ctypes.CDLL(os.path.join(folder, 'libtensorflow_cc.so.2'))
    library.TF_GetAllOpList.restype = ctypes.POINTER(Buffer)
    buffer = library.TF_GetAllOpList().contents
    return ctypes.string_at(buffer.data, buffer.length)


def fields(data):
    """Fields of a protocol buffer message as (number, value) pairs."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 127) << shift
            shift += 7
            if byte < 128:
                return value

    while at < len(data):
        tag = varint()
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            yield number, varint()
        else:
            size = varint() if wire == 2 else 8 if wire == 1 else 4
            yield number, data[at:at + size]
            at += size


def argument(data):
    names = {1: 'name', 3: 'type', 4: 'type_attr', 5: 'number_attr', 6: 'type_list_attr'}
    return {names[n]: v.decode() if isinstance(v, bytes) else v for n, v in fields(data) if n in names}


def describe(arg, defaults, inputs):
    text = arg['name'] + ':'
    if 'number_attr' in arg:
        text += arg['number_attr'] + '*'
    if 'type_list_attr' in arg:
        return text + arg['type_list_attr'] + '[]'
    if 'type_attr' not in arg:
        return text + DTYPES.get(arg['type'], '?')
    attr = arg['type_attr']
    text += attr
    if inputs is not None and attr in defaults and all(i.get('type_attr') != attr for i in inputs):
        text += '=' + DTYPES.get(defaults[attr], '?')
    return text


def signature(data):
    name, inputs, outputs, defaults = '', [], [], {}
    for number, value in fields(data):
        if number == 1:
            name = value.decode()
        elif number in (2, 3):
            (inputs if number == 2 else outputs).append(argument(value))
        elif number == 4:
            attr = dict(fields(value))
            kind = attr.get(2, b'').decode()
            if kind == 'type' and 3 in attr:
                defaults[attr[1].decode()] = dict(fields(attr[3]))[6]
    left = ' '.join(describe(a, defaults, None) for a in inputs)
    return name, left + ' -> ' + ' '.join(describe(a, defaults, inputs) for a in outputs)


def main():
    known = dict(signature(data) for _, data in fields(op_list(sys.argv[1])))
    for line in sys.stdin:
        match = re.match(r"  (\w+): '", line)
        print(f"  {match[1]}: '{known[match[1]]}'," if match else line.rstrip('\n'))


main()
