"""A grid's expressions as operations: what `language/symbolic.py` evaluates in Python, computed by the compiled code."""

from __future__ import annotations

import ast
from collections.abc import Mapping

from mosaic_compile.mlir import arith, ir


def names_in(text: str) -> list[str]:
    """The dimension names in an expression, in order of appearance."""
    tree = ast.parse(text, mode="eval")
    called = {node.func for node in ast.walk(tree) if isinstance(node, ast.Call)}
    names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and node not in called]
    return list(dict.fromkeys(n.id for n in sorted(names, key=lambda n: n.col_offset)))


def emit(text: str, values: Mapping[str, ir.Value]) -> ir.Value:
    """The expression's value as i64, at the current insertion point. Division by zero gives zero."""
    i64 = ir.IntegerType.get_signless(64)

    def constant(number: int) -> ir.Value:
        return arith.constant(i64, number)

    def divide(a: ir.Value, b: ir.Value) -> tuple[ir.Value, ir.Value]:
        """Quotient and remainder as Python has them: rounded down; 0 and 0 where b is 0."""
        zero, one = constant(0), constant(1)
        is_zero = arith.cmpi(arith.CmpIPredicate.eq, b, zero)
        # -1 too is kept from the instruction, which traps where the quotient overflows.
        is_minus_one = arith.cmpi(arith.CmpIPredicate.eq, b, constant(-1))
        safe = arith.select(arith.ori(is_zero, is_minus_one), one, b)
        quotient = arith.select(is_minus_one, arith.subi(zero, a), arith.floordivsi(a, safe))
        quotient = arith.select(is_zero, zero, quotient)
        remainder = arith.subi(a, arith.muli(quotient, b))
        return quotient, arith.select(is_zero, zero, remainder)

    def visit(node: ast.expr) -> ir.Value:
        match node:
            case ast.Constant(value=int() as number):
                return constant(number)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return arith.subi(constant(0), visit(operand))
            case ast.Name(id=name):
                return values[name]
            case ast.BinOp(left=left, op=op, right=right):
                a, b = visit(left), visit(right)
                match op:
                    case ast.Add():
                        return arith.addi(a, b)
                    case ast.Sub():
                        return arith.subi(a, b)
                    case ast.Mult():
                        return arith.muli(a, b)
                    case ast.FloorDiv():
                        return divide(a, b)[0]
                    case ast.Mod():
                        return divide(a, b)[1]
            case ast.Call(func=ast.Name(id="cdiv"), args=[left, right]):
                negated = arith.subi(constant(0), visit(left))
                return arith.subi(constant(0), divide(negated, visit(right))[0])
            case ast.Call(func=ast.Name(id="min" | "max" as name), args=[first, *rest]):
                pick = arith.minsi if name == "min" else arith.maxsi
                result = visit(first)
                for other in rest:
                    result = pick(result, visit(other))
                return result
        raise ValueError(f"'{text}' is not a grid expression")

    return visit(ast.parse(text, mode="eval").body)
