"""The payment window and the browser SDK that opens it: docs/gateway.md §11.

Reading order: `order` (what `IMP.request_pay` was asked for), `visit` (one customer in one window),
`line` (what the customer typed), `payment` (the money), `routes`. The SDK is `static/iamport.js`.
"""
