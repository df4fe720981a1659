"""How many boxes and slots a traffic needs: the gateway as it is before modelled boxes, on a clock that leaps."""
